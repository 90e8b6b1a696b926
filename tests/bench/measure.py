"""Seconds, and ratios from interleaved runs: a slow minute of the machine then hits both sides alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import torch

EXPENSIVE_ROUND_S = 30.0
"""A round that takes longer is not warmed up, and repeated less often."""

Round = Mapping[str, float]
"""Seconds by contestant; `OURS` is one of them."""

OURS = "ours"


@dataclass(frozen=True)
class Ratio:
    """How many times less time ours took: median and extremes over rounds; `*_s` are medians too."""

    median: float
    lowest: float
    highest: float
    rounds: int
    ours_s: float
    baseline_s: float

    @classmethod
    def of(cls, rounds: list[Round], baseline: str) -> Self:
        ratios = [one[baseline] / one[OURS] for one in rounds]
        return cls(
            statistics.median(ratios),
            min(ratios),
            max(ratios),
            len(rounds),
            statistics.median(one[OURS] for one in rounds),
            statistics.median(one[baseline] for one in rounds),
        )


def seconds(work: Callable[[], object]) -> float:
    """Wall time of `work`, what it left running on a GPU included."""
    _finish()
    start = time.perf_counter()
    work()
    _finish()
    return time.perf_counter() - start


def interleaved(one_round: Callable[[], Round], *, quick: bool) -> list[Round]:
    """Repeat rounds: 5 after a warm-up if they are cheap, else 3 (quick: 2, else 1)."""
    start = time.perf_counter()
    first = one_round()
    expensive = time.perf_counter() - start > EXPENSIVE_ROUND_S
    n = (1 if expensive else 2) if quick else (3 if expensive else 5)
    rounds = [first] if expensive else []
    while len(rounds) < n:
        rounds.append(one_round())
    return rounds


def contest(ours: Callable[[], object], baseline: Callable[[], object], name: str, *, quick: bool) -> Ratio:
    """One baseline that is timed as a whole."""
    rounds = interleaved(lambda: {OURS: seconds(ours), name: seconds(baseline)}, quick=quick)
    return Ratio.of(rounds, name)


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
