"""How a fetch comes along, on stderr: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from producer.fetch import Summary

_LINE_EVERY_S = 5.0


@contextmanager
def showing_fetch() -> Iterator[Callable[[Summary], None]]:
    """Gives a function that takes the summary as it grows and shows it."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console).show
        return
    columns = (
        TextColumn("pictures"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=None)

        def show(summary: Summary) -> None:
            progress.update(
                task,
                total=summary.n_pictures,
                completed=summary.n_done,
                description=f"{summary.n_kept} stood, {len(summary.failures)} failed",
            )

        yield show


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown_s = time.monotonic()

    def show(self, summary: Summary) -> None:
        """What is short is over before a line is due."""
        now_s = time.monotonic()
        if now_s - self._shown_s >= _LINE_EVERY_S:
            self._shown_s = now_s
            text = f"{summary.n_done} of {summary.n_pictures} pictures, {len(summary.failures)} failed"
            self._console.print(text, highlight=False, soft_wrap=True)
