"""The stages that an image passes, and which of them takes the most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Stage = Literal["read", "decode", "wait", "forward", "project", "encode", "write"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""`wait`: the network had no images to work on. The others: work, by as many threads as do it."""


def slowest_stage(stages: Mapping[str, float]) -> str | None:
    """The stage with the most seconds, None if there is none. To wait is no work: it is never the slowest."""
    work = {stage: seconds for stage, seconds in stages.items() if stage != "wait"}
    return max(work, key=work.__getitem__, default=None)
