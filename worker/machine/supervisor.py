"""Keeps worker processes going: starts them, starts anew those that die, and ends them all."""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType

from worker import names

logger = logging.getLogger(__name__)

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
_POLL_S = 0.1
_GENTLE_AT_LEAST_S = 0.5
"""A process that is still starting ends of SIGTERM; of SIGQUIT it would leave a core dump."""
_KILL_AFTER_S = 10
"""How long a worker that must end at once may take before it is killed: giving back a shard takes 2 s."""


@dataclass(frozen=True)
class Restarts:
    """When a worker that died is started again.

    The pause before it doubles with each death, up to the longest; a worker that lived longer than
    that begins anew with the first. So many early deaths in a row mean that it cannot work here.
    """

    first_pause_s: float = 1
    longest_pause_s: float = 60
    early_s: float = 20
    most_early_deaths: int = 5


@dataclass(frozen=True)
class Command:
    """How a worker is started, and what it is called in metrics."""

    label: str
    arguments: Sequence[str]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class WorkerState:
    """A worker as it is now; `name` is that of its last process."""

    label: str
    name: str
    up: bool
    n_restarts: int


class Supervisor:
    """The workers of this machine. For the main thread: it takes the signals."""

    def __init__(self, commands: Sequence[Command], shutdown_s: float, restarts: Restarts | None) -> None:
        """`restarts` None: the first worker that ends is the end of all."""
        self._workers = [_Worker(command, restarts) for command in commands]
        self._shutdown_s = shutdown_s
        self._signals: list[int] = []

    def states(self) -> list[WorkerState]:
        """All workers, in the order of their commands. Any thread may ask."""
        return [worker.state() for worker in self._workers]

    def run(self) -> int:
        """Keep the workers going until a signal comes, or one of them is given up; returns the exit code.

        Then all are told to end. They may finish what they are at for `shutdown_s`; after that, or at a
        second signal, they give it back and end at once.
        """
        for signum in _ENDING:
            signal.signal(signum, self._on_signal)
        try:
            while not self._signals:
                for worker in self._workers:
                    code = worker.keep()
                    if code is not None:
                        return code
                time.sleep(_POLL_S)
            logger.info(
                "%s: workers may go on with their shards for %g s; a second signal ends them at once",
                signal.Signals(self._signals[0]).name,
                self._shutdown_s,
            )
            return 0
        finally:
            self._end()

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        self._signals.append(signum)

    def _end(self) -> None:
        for worker in self._workers:
            worker.send(signal.SIGTERM)
        if not self._all_gone(max(self._shutdown_s, _GENTLE_AT_LEAST_S), unless_signals=2):
            for worker in self._workers:
                worker.send(signal.SIGQUIT)
            if not self._all_gone(_KILL_AFTER_S, unless_signals=3):
                logger.warning("workers did not end in time and are killed")
        for worker in self._workers:
            worker.kill()

    def _all_gone(self, timeout_s: float, unless_signals: int) -> bool:
        """Wait for the end of all workers, until the time is up or so many signals have come."""
        deadline = time.monotonic() + timeout_s
        while any(worker.state().up for worker in self._workers):
            if len(self._signals) >= unless_signals or time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        return True


class _Worker:
    """One worker: its process, and the deaths of those before it."""

    def __init__(self, command: Command, restarts: Restarts | None) -> None:
        self._command = command
        self._restarts = restarts
        self._name = names.new_name(command.label)
        self._process: subprocess.Popen[bytes] | None = None
        self._n_restarts = 0
        self._n_early_deaths = 0
        self._pause_s = 0.0
        self._changed_at = time.monotonic()

    def state(self) -> WorkerState:
        process = self._process
        return WorkerState(
            self._command.label,
            self._name,
            up=process is not None and process.poll() is None,
            n_restarts=self._n_restarts,
        )

    def keep(self) -> int | None:
        """Start the worker if it does not run and its pause is over; its exit code if it is given up."""
        since_s = time.monotonic() - self._changed_at
        if self._process is None:
            if since_s >= self._pause_s:
                self._start()
            return None
        code = self._process.poll()
        return None if code is None else self._bury(code, since_s)

    def send(self, signum: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signum)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        self._n_restarts += self._pause_s > 0
        self._name = names.new_name(self._command.label)
        self._process = subprocess.Popen(  # noqa: S603 (a list of words, no shell)
            self._command.arguments,
            env={**self._command.environment, names.VARIABLE: self._name},
            stdin=subprocess.DEVNULL,
            # Everything is said on stderr; only Celery's own words at a signal would come here.
            stdout=subprocess.DEVNULL,
        )
        self._changed_at = time.monotonic()
        logger.info("%s: process %d is %s", self._command.label, self._process.pid, self._name)

    def _bury(self, code: int, lived_s: float) -> int | None:
        self._process = None
        self._changed_at = time.monotonic()
        how = f"{self._name} ended with code {code} after {lived_s:.1f} s"
        restarts = self._restarts
        if restarts is None:
            logger.error("%s", how)
            return _exit_code(code)
        self._n_early_deaths = self._n_early_deaths + 1 if lived_s < restarts.early_s else 0
        if self._n_early_deaths == restarts.most_early_deaths:
            logger.error("%s, the death number %d soon after its start: given up", how, self._n_early_deaths)
            return _exit_code(code)
        if lived_s > restarts.longest_pause_s:
            self._pause_s = 0.0
        self._pause_s = min(max(2 * self._pause_s, restarts.first_pause_s), restarts.longest_pause_s)
        logger.warning("%s; it starts again in %g s", how, self._pause_s)
        return None


def _exit_code(code: int) -> int:
    """A worker's end as this process' own: never 0, because nobody told it to end."""
    return 128 - code if code < 0 else code or 1
