"""`deconvoy run`: a whole job on this machine, and nothing left behind however it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import redis

from tests.cluster import TIMEOUT_S, Deconvoy, end_with_children, wait_until
from tests.length import AT_LENGTH, at_length
from tests.photographs import photographs
from worker.contract import queue

pytestmark = pytest.mark.integration

SMALL = ("--weights", "random:0", "--model", "vgg11", "--size", "64")
TWO_SPECS = ("--spec", "pool2:all", "--spec", "pool2:max")


def test_a_run_leaves_the_whole_job_and_no_process(deconvoy: Deconvoy, photos: Path, tmp_path: Path) -> None:
    network = ("--weights", "random:0", "--size", "64")
    said = ("--json", "--verbose")
    ended = deconvoy("run", str(photos), "--out", str(tmp_path / "out"), *network, *TWO_SPECS, *said)

    assert ended.returncode == 0, ended.stderr
    assert " DEBUG " in ended.stderr
    assert "3 of 3 images, 0 failed, " in ended.stderr
    result = json.loads(ended.stdout)
    assert (result["state"], result["n_done"], result["n_failed"]) == ("finished", 3, 0)
    rows = pq.read_table(Path(result["place"]) / "index.parquet").to_pylist()
    assert [(Path(row["image"]).name, row["spec"], row["status"]) for row in rows] == [
        (name, spec, "ok")
        for name in ("astronaut.png", "chelsea.png", "coffee.png")
        for spec in ("pool2:all", "pool2:max")
    ]
    assert all((Path(result["place"]) / row["key"]).is_file() for row in rows)
    assert Path(result["report"]).is_file()
    certificate = json.loads((Path(result["place"]) / "certificate.json").read_text())
    assert certificate["windows_against_dense"] == certificate["zero_in_zero_out"] == 0
    assert not any(deconvoy.temporary.iterdir())


def test_the_same_run_again_does_nothing_and_a_lost_shard_alone_is_done_again(
    deconvoy: Deconvoy, photos: Path, tmp_path: Path
) -> None:
    command = ("run", str(photos), "--out", str(tmp_path / "out"), *SMALL, *TWO_SPECS)
    first = deconvoy(*command)
    place = Path(first.stdout.strip()).parents[1]
    shards = sorted((place / "shards").iterdir())
    written = [path.stat().st_mtime_ns for path in shards]
    assert len(shards) == 3

    again = deconvoy(*command)
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert [path.stat().st_mtime_ns for path in shards] == written

    shards[1].unlink()
    third = deconvoy(*command)
    assert (third.returncode, third.stdout) == (0, first.stdout)
    assert [path.stat().st_mtime_ns == time for path, time in zip(shards, written, strict=True)] == [
        True,
        False,
        True,
    ]


def test_a_corrupt_photograph_is_a_failed_row_and_exit_code_3(
    deconvoy: Deconvoy, photos: Path, tmp_path: Path
) -> None:
    whole = (photos / "astronaut.png").read_bytes()
    (photos / "broken.png").write_bytes(whole[: len(whole) // 2])

    ended = deconvoy("run", str(photos), "--out", str(tmp_path / "out"), *SMALL, *TWO_SPECS, "--quiet")

    assert ended.returncode == 3, ended.stderr
    failed = ended.stderr.splitlines()
    assert len(failed) == 1
    assert failed[0].startswith(f"failed: {photos / 'broken.png'}: ImageUnreadable: ")
    table = pq.read_table(Path(ended.stdout.strip()).parents[1] / "index.parquet")
    assert {(Path(row["image"]).name, row["status"]) for row in table.to_pylist()} == {
        ("astronaut.png", "ok"),
        ("broken.png", "failed"),
        ("chelsea.png", "ok"),
        ("coffee.png", "ok"),
    }
    assert table.num_rows == 8


def test_weights_that_do_not_load_end_the_run_with_one_line(
    deconvoy: Deconvoy, photos: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "net.safetensors"
    weights.write_bytes(b"no weights at all")

    ended = deconvoy("run", str(photos), "--out", str(tmp_path / "out"), "--weights", str(weights))

    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("deconvoy: ")
    assert str(weights) in last
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    assert not any(deconvoy.temporary.iterdir())


@at_length
def test_a_run_uses_the_redis_of_the_settings(
    deconvoy: Deconvoy, photos: Path, tmp_path: Path, redis_url: str, client: redis.Redis
) -> None:
    command = ("run", str(photos), "--out", str(tmp_path / "out"), *SMALL, *TWO_SPECS, "--json")
    ended = deconvoy(*command, DECONVOY_REDIS_URL=redis_url)

    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert client.hgetall(queue.JOBS_KEY) == {result["id"]: result["place"]}
    assert client.hgetall(queue.progress_key(result["id"])) == {"0": "1/0", "1": "1/0", "2": "1/0"}
    assert client.ttl(queue.progress_key(result["id"])) > 0


def test_a_worker_that_dies_ends_the_run(deconvoy: Deconvoy, long_job: tuple[str, ...]) -> None:
    process = deconvoy.start(*long_job)
    try:
        children = wait_for_work(process, Path(long_job[-1]))
        for child in children:
            if "worker.launch" in child.cmdline() and "producer.guard" not in child.cmdline():
                child.kill()
        _, err = process.communicate(timeout=TIMEOUT_S)
    finally:
        end_with_children(process)

    assert process.returncode == 1
    assert "the worker of this run has ended unexpectedly" in err.splitlines()[-1]
    assert_gone(children, deconvoy.temporary)


def interrupt_group(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGINT)


ENDINGS: dict[str, tuple[Callable[[subprocess.Popen[str]], None], int]] = {
    "SIGINT to its group": (interrupt_group, 130),
    "SIGINT to it alone": (lambda process: process.send_signal(signal.SIGINT), 130),
    "SIGTERM": (lambda process: process.send_signal(signal.SIGTERM), 143),
    "SIGHUP": (lambda process: process.send_signal(signal.SIGHUP), 129),
    "SIGKILL": (lambda process: process.kill(), -9),
}


@pytest.mark.parametrize(
    "how",
    [
        "SIGINT to its group",
        "SIGTERM",
        "SIGKILL",
        *(pytest.param(how, marks=AT_LENGTH) for how in ("SIGINT to it alone", "SIGHUP")),
    ],
)
def test_a_run_that_is_ended_amid_its_work_leaves_no_process(
    deconvoy: Deconvoy, long_job: tuple[str, ...], how: str
) -> None:
    end, code = ENDINGS[how]
    process = deconvoy.start(*long_job)
    try:
        children = wait_for_work(process, Path(long_job[-1]))
        end(process)
        _, err = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == code
        assert "Traceback" not in err
        assert_gone(children, deconvoy.temporary)
    finally:
        end_with_children(process)


@pytest.fixture
def long_job(tmp_path: Path) -> tuple[str, ...]:
    """A run of so many shards, of one image each, that it cannot end before it is ended, however slow the
    test is. Its last argument is its --out.
    """
    folder = tmp_path / "many"
    folder.mkdir()
    first = folder / "000.png"
    shutil.copy(photographs()[0], first)
    for number in range(1, 300):
        (folder / f"{number:03}.png").hardlink_to(first)
    options = (*SMALL, *TWO_SPECS, "--shard-size", "1", "--batch-size", "1")
    return ("run", str(folder), *options, "--out", str(tmp_path / "out"))


def wait_for_work(process: subprocess.Popen[str], out: Path) -> list[psutil.Process]:
    """Wait until the first shard is done; returns all processes that the run has started."""
    wait_until(
        lambda: any(out.glob("*/shards/*.parquet")) or process.poll() is not None, "the first shard is done"
    )
    assert process.poll() is None, process.communicate()
    children: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 6  # two guards, Redis, the launcher, Celery's parent, and its child
    return children


def assert_gone(children: list[psutil.Process], temporary: Path) -> None:
    _, alive = psutil.wait_procs(children, TIMEOUT_S)
    assert alive == []
    wait_until(lambda: not any(temporary.iterdir()), "the temporary folder is removed")
