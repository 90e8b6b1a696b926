"""How long each stage of a shard took, summed over its threads."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Stage = Literal["read", "decode", "wait", "compute", "encode", "write"]
STAGES: tuple[Stage, ...] = ("read", "decode", "wait", "compute", "encode", "write")
"""`wait`: the network had no images to work on. The others: work, by as many threads as do it."""


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

    def to_json(self) -> bytes:
        """Seconds by stage, as they stand in a record's metadata."""
        with self._lock:
            return json.dumps({stage: round(seconds, 6) for stage, seconds in self._seconds.items()}).encode()
