"""How a job comes along, on stderr: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from producer.status import JobStatus

_LINE_EVERY_S = 5.0


@contextmanager
def showing_progress() -> Iterator[Callable[[JobStatus], None]]:
    """Gives a function that takes each new status and shows it."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console).show
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("[red]{task.fields[failures]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bar(progress).show


def counted(status: JobStatus) -> tuple[str, int, int]:
    """What is shown, how much of it is done, and of how much: images, and shards while an atlas is made."""
    if status.n_done == status.n_images and status.n_shards_done < status.n_shards:
        return "shards", status.n_shards_done, status.n_shards
    return "images", status.n_done, status.n_images


class Rate:
    """Images a second since work began; what was done before does not count."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def text(self, now_s: float, n_done: int) -> str:
        """The rate up to now, or that the first image is awaited."""
        if self._first is None or n_done <= self._first[1]:
            self._first = self._first or (now_s, n_done)
            return "starting"
        start_s, n_before = self._first
        return f"{(n_done - n_before) / max(now_s - start_s, 1e-9):.3g} images/s"


class _Bar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("images", total=None, rate="starting", failures="")
        self._rate = Rate()

    def show(self, status: JobStatus) -> None:
        what, n_done, n_all = counted(status)
        self._progress.update(
            self._task,
            description=what,
            total=n_all,
            completed=n_done,
            rate=self._rate.text(time.monotonic(), status.n_done),
            failures=f"{status.n_failed} failed" if status.n_failed else "",
        )


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._rate = Rate()
        self._shown_s = float("-inf")

    def show(self, status: JobStatus) -> None:
        now_s = time.monotonic()
        rate = self._rate.text(now_s, status.n_done)
        if status.finished or now_s - self._shown_s >= _LINE_EVERY_S:
            self._shown_s = now_s
            what, n_done, n_all = counted(status)
            self._console.print(
                f"{n_done} of {n_all} {what}, {status.n_failed} failed, {rate}",
                highlight=False,
                soft_wrap=True,
            )
