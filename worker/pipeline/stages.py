"""How long each stage of a shard took, summed over its threads, and what it took of the machine."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from worker.contract.stages import STAGES, Stage


@dataclass
class Timer:
    """`seconds` is what the measured block took, once it has ended."""

    seconds: float = 0.0


class Stages:
    """Adds up seconds by stage; any thread may measure."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self._lock = threading.Lock()

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[Timer]:
        """Count the block's time to `stage`, also if it raises."""
        timer = Timer()
        start = time.perf_counter()
        try:
            yield timer
        finally:
            timer.seconds = time.perf_counter() - start
            with self._lock:
                self._seconds[stage] += timer.seconds

    def seconds(self) -> dict[str, float]:
        """Seconds by stage up to now, in the order in which an image passes the stages."""
        with self._lock:
            return {stage: round(seconds, 6) for stage, seconds in self._seconds.items()}


def peak_rss_bytes() -> int:
    """The most memory that this process has held since it started."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, kibibytes elsewhere.
    return peak if sys.platform == "darwin" else peak * 1024
