"""Processes that tests start, and what they need of the machine: no fixed port, nothing left running."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from producer.local import find_server

TIMEOUT_S = 150.0


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = TIMEOUT_S) -> None:
    """Poll until `holds()`; fails, naming `what`, after the time limit."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.05)


def end_with_children(process: subprocess.Popen[str]) -> None:
    """End a process that a test started, and all that it started."""
    left = [process_ for process_ in family(process.pid) if process_.is_running()]
    # One may be gone since: it ends with its parent.
    for member in left:
        with suppress(psutil.NoSuchProcess):
            member.terminate()
    _, alive = psutil.wait_procs(left, 10)
    for member in alive:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.communicate()


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it started, as far as they live."""
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

    @contextmanager
    def logging(self, log: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """One that runs for long and says much; what it says is appended to `log`. It is ended at the end."""
        with log.open("a") as file:
            # Not a pipe, which nobody would empty.
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "producer.cli", *arguments],
                env={**self.environment, "DECONVOY_SHUTDOWN_S": "0", **environment},
                stdout=file,
                stderr=file,
                text=True,
            )
        try:
            yield process
        finally:
            end_with_children(process)

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        process = self.start(*arguments, **environment)
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        finally:
            end_with_children(process)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def private_deconvoy(temporary: Path) -> Deconvoy:
    """One that sees no setting and no GPU of this machine's; its TMPDIR is made."""
    temporary.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DECONVOY_")}
    return Deconvoy({**kept, "TMPDIR": str(temporary), "CUDA_VISIBLE_DEVICES": ""}, temporary)


def start_redis(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start a Redis on the socket `redis.sock` in `folder`, and return when it can be reached."""
    socket = folder / "redis.sock"
    socket.unlink(missing_ok=True)
    place = ["--port", "0", "--unixsocket", str(socket), "--dir", str(folder)]
    with (folder / "redis.log").open("ab") as log:
        server = subprocess.Popen([find_server(), *place, "--save", "", *options], stdout=log, stderr=log)
    wait_until(socket.exists, "Redis starts")
    return server


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A Redis of the test's own; yields its URL."""
    server = start_redis(folder)
    try:
        yield f"unix://{folder / 'redis.sock'}"
    finally:
        server.terminate()
        server.wait()
