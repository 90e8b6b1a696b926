"""A real Redis, real workers, and what they leave: no mock, no fixed port, no sleep for luck."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import redis

from producer.local import find_server
from tests.photographs import photographs

TIMEOUT_S = 90.0


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = TIMEOUT_S) -> None:
    """Poll until `holds()`; fails, naming `what`, after the time limit."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.05)


def end_with_children(process: subprocess.Popen[str]) -> None:
    """End a process that a test started, and all that it started."""
    left = [process_ for process_ in _family(process.pid) if process_.is_running()]
    for member in left:
        member.terminate()
    _, alive = psutil.wait_procs(left, 10)
    for member in alive:
        member.kill()
    process.communicate()


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@dataclass
class Deconvoy:
    """Runs `deconvoy` with an environment of its own; `temporary` is its TMPDIR."""

    environment: dict[str, str]
    temporary: Path

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start it, in a session of its own, and return at once."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "producer.cli", *arguments],
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        process = self.start(*arguments, **environment)
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        finally:
            end_with_children(process)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="dv-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def deconvoy(short_folder: Path) -> Deconvoy:
    temporary = short_folder / "tmp"
    temporary.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DECONVOY_")}
    return Deconvoy({**kept, "TMPDIR": str(temporary), "CUDA_VISIBLE_DEVICES": ""}, temporary)


@pytest.fixture
def redis_url(short_folder: Path) -> Iterator[str]:
    """A Redis of the test's own, on a socket."""
    socket = short_folder / "redis.sock"
    command = [
        find_server(),
        "--port",
        "0",
        "--unixsocket",
        str(socket),
        "--save",
        "",
        "--dir",
        str(short_folder),
    ]
    with (short_folder / "redis.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(socket.exists, "Redis starts")
        yield f"unix://{socket}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as connected:
        yield connected


@pytest.fixture
def worker(deconvoy: Deconvoy, redis_url: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`deconvoy worker` on the CPU; its log is at tmp_path/worker.log."""
    environment = {**deconvoy.environment, "DECONVOY_REDIS_URL": redis_url, "DECONVOY_SHUTDOWN_S": "0"}
    with (tmp_path / "worker.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "producer.cli", "worker", "--gpus", "none"],
            env=environment,
            stdout=log,
            stderr=log,
            text=True,
        )
    yield process
    end_with_children(process)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photographs in a folder."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for photograph in photographs()[:3]:
        shutil.copy(photograph, folder)
    return folder
