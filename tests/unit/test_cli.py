"""The command line as a program: what it prints, imports and ends with."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import producer.cli
from producer.progress import Rate

HEAVY = (
    "torch",
    "boto3",
    "botocore",
    "celery",
    "kombu",
    "pyarrow",
    "pydantic",
    "numpy",
    "PIL",
    "redis",
    "rich",
)
COMMANDS = tuple(producer.cli.cli.commands)


def deconvoy(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "producer.cli", *arguments]
    return subprocess.run(
        command, env={"PATH": "/usr/bin:/bin", **environment}, input=stdin, capture_output=True, text=True
    )


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    code = f"import sys, json, producer.cli; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert json.loads(ended.stdout) == []


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_loads_nothing_heavy_and_opens_with_an_example(command: tuple[str, ...]) -> None:
    code = (
        "import sys, producer.cli; producer.cli.main([*sys.argv[1:], '--help']); "
        f"sys.exit(any(m in sys.modules for m in {HEAVY!r}))"
    )
    ended = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    paragraphs = ended.stdout.split("\n\n")
    assert paragraphs[0].startswith("Usage: ")
    assert paragraphs[1].lstrip().startswith("Example: ")
    assert "deconvoy " + " ".join(command) in paragraphs[1]


def test_help_answers_well_within_half_a_second() -> None:
    script = Path(sys.executable).with_name("deconvoy")
    times_s = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([script, "--help"], check=True, capture_output=True)
        times_s.append(time.perf_counter() - start)

    assert min(times_s) < 0.5


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert deconvoy("--version").stdout == f"deconvoy {version('deconvoy')}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["fly"], 2, "No such command"),
        (["run"], 2, "Missing argument"),
        (["run", "{photo}", "--out", "{out}", "--format", "jpeg"], 2, "--format"),
        (["run", "{photo}", "--out", "{out}", "--size", "31"], 2, "--size"),
        (["run", "{photo}", "--out", "{out}", "--layout", "zip"], 2, "--layout"),
        (["run", "{photo}", "--out", "{out}", "--spec", "pool6:max"], 2, "deconvoy: spec 'pool6:max'"),
        (["run", "{photo}", "--out", "s3://"], 2, "deconvoy: 's3://' names no bucket"),
        (["run", "/no/photo.png", "--out", "{out}"], 2, "deconvoy: source '/no/photo.png' does not exist"),
        (["run", "http://host/a.png", "--out", "{out}"], 2, "deconvoy: source 'http://host/a.png': "),
        (["run", "{photo}", "--out", "{out}", "--weights", "vgg"], 1, "deconvoy: weights 'vgg' are unknown"),
        (
            ["run", "~nobody-here/a.png", "--out", "{out}"],
            2,
            "deconvoy: source '~nobody-here/a.png' does not",
        ),
        (["run", "{photo}", "--out", "{out}", "--weights", "~nobody-here/a.pth"], 1, "deconvoy: weights"),
        (["submit", "{photo}", "--out", "{out}"], 2, "deconvoy: DECONVOY_REDIS_URL is not set"),
        (["worker"], 2, "deconvoy: DECONVOY_REDIS_URL is not set"),
        (["status", "{out}"], 1, "deconvoy: there is no job"),
    ],
)
def test_wrong_use_ends_with_one_line_and_its_exit_code(
    tmp_path: Path, arguments: list[str], code: int, reason: str
) -> None:
    photo = tmp_path / "a.png"
    photo.touch()
    filled = [part.format(photo=photo, out=tmp_path / "out") for part in arguments]

    ended = deconvoy(*filled)

    assert ended.returncode == code
    assert reason in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    if "deconvoy: " in reason:
        assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_setting_with_a_wrong_value_is_named(tmp_path: Path) -> None:
    ended = deconvoy("status", str(tmp_path), DECONVOY_REDIS_URL="http://x")

    assert ended.returncode == 2
    assert ended.stderr.startswith("deconvoy: DECONVOY_REDIS_URL='http://x' cannot be used")


def test_a_redis_that_does_not_answer_is_one_line_without_its_password(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    url = f"unix://user:secret@{tmp_path}/nothing.sock"

    ended = deconvoy(
        "submit", str(tmp_path), "--out", str(tmp_path), "--weights", "random:0", DECONVOY_REDIS_URL=url
    )

    assert ended.returncode == 1
    assert ended.stderr.startswith("deconvoy: Redis at unix://")
    assert "secret" not in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_doctor_says_what_is_wrong_and_what_works(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    ended = deconvoy("doctor", "--out", str(tmp_path / "file" / "out"), "--weights", "random:0")

    lines = dict(line.split(maxsplit=2)[1::-1] for line in ended.stdout.splitlines())
    assert lines == {"server": "ok", "redis": "ok", "torch": "ok", "store": "problem", "weights": "ok"}
    assert ended.returncode == 1


def test_doctor_ends_with_0_if_all_is_well(tmp_path: Path) -> None:
    assert deconvoy("doctor", "--out", str(tmp_path)).returncode == 0


def test_file_names_cannot_command_the_terminal(tmp_path: Path) -> None:
    ended = deconvoy("run", str(tmp_path / "\x1b[2Jgone.png"), "--out", str(tmp_path))

    assert "\x1b" not in ended.stderr
    assert "gone.png" in ended.stderr


def test_the_rate_counts_from_the_first_look_and_without_earlier_work() -> None:
    rate = Rate()

    assert rate.text(10.0, 100) == "starting"
    assert rate.text(12.0, 100) == "starting"
    assert rate.text(14.0, 108) == "2 images/s"
