"""How a shard is worked on that has cost workers their lives: one image at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Caution:
    """`suspects` come last; `quarantined` images are not touched. All are positions within the shard.

    `on_start(position)` is called before anything is done with an image, and `on_start(None)` when all
    are done with: a process that dies has left word of which image it was, if it was any.
    """

    suspects: frozenset[int]
    quarantined: frozenset[int]
    on_start: Callable[[int | None], None]

    def order(self, positions: Iterable[int]) -> list[int]:
        """Those of `positions` that are worked on, in the order in which they are."""
        allowed = [position for position in positions if position not in self.quarantined]
        return sorted(allowed, key=lambda position: position in self.suspects)
