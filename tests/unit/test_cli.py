"""The command line as a program: what it prints, imports and ends with."""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import producer.cli
from producer import versions

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
ROOT = Path(__file__).parents[2]
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


def test_the_version_loads_nothing_heavy() -> None:
    code = (
        "import sys, producer.cli; producer.cli.main(['--version']); "
        f"sys.exit(any(m in sys.modules for m in {HEAVY!r}))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_need_far_less_than_half_a_second(option: str) -> None:
    script = Path(sys.executable).with_name("deconvoy")
    times_s = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([script, option], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # The processor's time and not the clock's: others may use this machine too.
        times_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    assert min(times_s) < 0.4


def test_the_version_comes_first_and_then_those_of_what_it_works_with() -> None:
    import torch

    first, *components = deconvoy("--version").stdout.splitlines()

    assert first == f"deconvoy {metadata.version('deconvoy')}"
    assert dict(line.split(maxsplit=1) for line in components) == {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "celery": metadata.version("celery"),
        "redis-py": metadata.version("redis"),
        "pyarrow": metadata.version("pyarrow"),
        "boto3": metadata.version("boto3"),
        # What torch itself says once it is imported, which --version does not do.
        "torch": f"{metadata.version('torch')}, "
        + (f"CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"),
        "torchvision": metadata.version("torchvision"),
    }


def test_the_version_names_what_is_not_installed(tmp_path: Path) -> None:
    code = "import sys; sys.path[:] = sys.argv[1:]; from producer.versions import report; print(report())"
    # Only the standard library, this project, and what tells its version.
    folders = [str(ROOT), *(path for path in sys.path if path and "site-packages" not in path), str(tmp_path)]
    metadata_of(tmp_path, "deconvoy", "1.2.3")
    metadata_of(tmp_path, "torch", "2.9.0")
    ended = subprocess.run([sys.executable, "-I", "-c", code, *folders], capture_output=True, text=True)

    lines = ended.stdout.splitlines()
    assert lines[0] == "deconvoy 1.2.3", ended.stderr
    versions = dict(line.split(maxsplit=1) for line in lines[1:])
    assert versions["celery"] == versions["torchvision"] == "not installed"
    assert versions["torch"] == "2.9.0, CUDA unknown"


def metadata_of(folder: Path, name: str, version: str) -> None:
    """What stands beside an installed package."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cuda = '11.8'\n", "CUDA 11.8"),
        ("from typing import Optional\ncuda: Optional[str] = None\n", "without CUDA"),
        ("hip = '6'\n", "CUDA unknown"),
        ("cuda = (", "CUDA unknown"),
    ],
)
def test_the_cuda_of_torch_is_read_and_not_imported(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "version.py").write_text(text)

    assert versions.cuda_of(tmp_path / "version.py") == said


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
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
