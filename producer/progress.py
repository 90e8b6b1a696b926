"""How a job or a fetch comes along, on stderr: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from producer.terminal import Verbosity, tell, verbosity

if TYPE_CHECKING:
    from producer.fetch import Summary
    from producer.status import JobStatus

_LINE_EVERY_S = 5.0
_LINE_EVERY_AT_LAST_S = 60.0


@dataclass(frozen=True)
class Standing:
    """How much of what is done, and how many failed; `remark` is said besides."""

    what: str
    n_done: int
    n_all: int
    n_failed: int
    remark: str = ""
    ended: bool = False


@contextmanager
def showing_job() -> Iterator[Callable[[JobStatus], None]]:
    """Gives a function that takes each new status of a job and shows it."""
    with _showing(first_line_after_s=0.0) as show:
        yield lambda status: show(standing_of_job(status))


@contextmanager
def showing_fetch() -> Iterator[Callable[[Summary], None]]:
    """Gives a function that takes the summary of a fetch as it grows and shows it."""
    # Most fetches are over before a line is due.
    with _showing(first_line_after_s=_LINE_EVERY_S) as show:
        yield lambda summary: show(standing_of_fetch(summary))


def standing_of_job(status: JobStatus) -> Standing:
    """In images, and in shards while an atlas is made."""
    if status.n_done == status.n_images and status.n_shards_done < status.n_shards:
        what, n_done, n_all = "shards", status.n_shards_done, status.n_shards
    else:
        what, n_done, n_all = "images", status.n_done, status.n_images
    return Standing(what, n_done, n_all, status.n_failed, ended=status.finished)


def standing_of_fetch(summary: Summary) -> Standing:
    """In pictures, with how many of them stood there already."""
    remark = f"{summary.n_kept} stood" if summary.n_kept else ""
    return Standing("pictures", summary.n_done, summary.n_pictures, len(summary.failures), remark)


class Rate:
    """How many a second are done since work on them began; what was done before does not count."""

    def __init__(self) -> None:
        self._what = ""
        self._start_s = 0.0
        self._n_before = 0

    def text(self, now_s: float, standing: Standing) -> str:
        """The rate up to now, or that the first one is awaited; nothing if all was done before."""
        if standing.what != self._what:
            self._what, self._start_s, self._n_before = standing.what, now_s, standing.n_done
        n_new = standing.n_done - self._n_before
        if n_new > 0:
            return f"{n_new / max(now_s - self._start_s, 1e-9):.3g} {standing.what}/s"
        return "starting" if standing.n_done < standing.n_all else ""


class Lines:
    """Tells a standing in a line, if one is due: every 5 s at first, every minute when it takes long."""

    def __init__(self, first_after_s: float, now_s: float) -> None:
        self._start_s = now_s
        self._due_s = now_s + first_after_s
        self._rate = Rate()

    def show(self, standing: Standing, now_s: float) -> None:
        """Tell it if a line is due, or it is the last."""
        rate = self._rate.text(now_s, standing)
        if standing.ended or now_s >= self._due_s:
            pause_s = max(_LINE_EVERY_S, (now_s - self._start_s) / 10)
            self._due_s = now_s + min(pause_s, _LINE_EVERY_AT_LAST_S)
            parts = (f"{standing.n_done} of {standing.n_all} {standing.what}", *_besides(standing), rate)
            tell(", ".join(filter(None, parts)))


@contextmanager
def _showing(first_line_after_s: float) -> Iterator[Callable[[Standing], None]]:
    # A log runs past between two lines, which a bar would not survive.
    if verbosity() is Verbosity.NORMAL and _moves_cursor():
        with _bar() as show:
            yield show
    else:
        lines = Lines(first_line_after_s, time.monotonic())
        yield lambda standing: lines.show(standing, time.monotonic())


@contextmanager
def _bar() -> Iterator[Callable[[Standing], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[besides]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    rate = Rate()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=None, rate="", besides="")

        def show(standing: Standing) -> None:
            progress.update(
                task,
                description=standing.what,
                total=standing.n_all,
                completed=standing.n_done,
                rate=rate.text(time.monotonic(), standing),
                besides=", ".join(_besides(standing)),
            )

        yield show


def _besides(standing: Standing) -> list[str]:
    failed = f"{standing.n_failed} failed"
    return [failed, standing.remark] if standing.remark else [failed]


def _moves_cursor() -> bool:
    """Whether stderr is a terminal that can draw a line anew."""
    return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
