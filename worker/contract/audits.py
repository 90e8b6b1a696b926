"""What an audit is asked for, and how its atlas is cut into shards."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from worker.contract.architectures import Layer

UNITS_A_SHARD = 64
"""Units whose winners are projected by one message."""

DEFAULT_LAYERS = ("pool1", "pool2", "pool3", "pool4", "pool5")

Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")


class AuditOptions(BaseModel):
    """What makes a job an audit. Its request's specs are `LAYER:max` for each layer that is looked at.

    `baseline` is the place of a finished audit that this one is compared with; unless `recompute`, what
    stands there of an unchanged image is taken from it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    top: int = Field(default=9, ge=1, le=25)
    baseline: str | None = None
    recompute: bool = False


def atlas_chunks(layers: tuple[Layer, ...]) -> list[tuple[Layer, range]]:
    """The units of each atlas shard, in order: never of two layers."""
    return [
        (layer, range(first, min(first + UNITS_A_SHARD, layer.channels)))
        for layer in layers
        for first in range(0, layer.channels, UNITS_A_SHARD)
    ]
