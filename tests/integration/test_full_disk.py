"""A disk that is full in the middle of a job: a real one, a small file system in memory of the test's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cluster import TIMEOUT_S, Deconvoy

pytestmark = pytest.mark.integration

# $1: the folder to mount; $2: where to leave what stood there; the rest: the command.
SCRIPT = """
disk=$1; left=$2; shift 2
mount -t tmpfs -o size=1m none "$disk" || exit 100
"$@" --out "$disk" >"$left/first.out" 2>"$left/first.err"; echo $? >"$left/first.code"
(cd "$disk" && find . -type f) >"$left/first.files"
mount -o remount,size=64m "$disk"
"$@" --out "$disk" >"$left/second.out" 2>"$left/second.err"; echo $? >"$left/second.code"
cp -r "$disk" "$left/disk"
"""


def in_namespace(
    *command: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command that may mount what it likes: nobody else sees it, and it ends with the command."""
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT_S,
        check=False,
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mounted = in_namespace("mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder))
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    return folder


def test_a_full_disk_is_one_line_what_was_done_stays_and_the_same_command_goes_on(
    small_disk: Path, deconvoy: Deconvoy, photos: Path, tmp_path: Path
) -> None:
    left = tmp_path / "left"
    left.mkdir()
    # A picture has 600 kB.
    network = ("--weights", "random:0", "--model", "vgg11")
    options = (*network, "--spec", "pool1:all", "--format", "npy", "--shard-size", "1")
    command = (sys.executable, "-P", "-m", "producer.cli", "run", str(photos), *options)

    ran = in_namespace(
        "sh", "-c", SCRIPT, "sh", str(small_disk), str(left), *command, environment=deconvoy.environment
    )

    assert ran.returncode == 0, ran.stderr
    assert (left / "first.code").read_text().strip() == "1"
    said = (left / "first.err").read_text()
    assert "Traceback" not in said
    [line] = {line for line in said.splitlines() if "No space left" in line}
    assert line.startswith("deconvoy: cannot write")
    assert "free some space" in line
    stood = set((left / "first.files").read_text().split())
    assert len([name for name in stood if "/shards/" in name]) == 1
    assert not [name for name in stood if ".deconvoy-tmp" in name]
    assert (left / "second.code").read_text().strip() == "0"
    [index] = (left / "disk").rglob("index.parquet")
    assert pq.read_table(index)["status"].to_pylist() == ["ok"] * 3
    assert stood <= {f"./{path.relative_to(left / 'disk')}" for path in (left / "disk").rglob("*")}
