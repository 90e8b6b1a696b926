"""What an audit is asked for, how its atlas is cut into shards, and the plan of such a shard."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.contract.architectures import Layer
from worker.contract.errors import MessageError

UNITS_A_SHARD = 64
"""Units whose winners are projected by one message."""

DEFAULT_LAYERS = ("pool1", "pool2", "pool3", "pool4", "pool5")

Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """A row of `findings.parquet`; docs/audits.md has every kind and what its `number` counts."""

    kind: str
    severity: Severity
    subject: str
    number: float | None
    why: str


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


class Winners(BaseModel):
    """One line of an atlas shard's plan: an image, and of which units it is a winner.

    `key` is the image's key within the job, `sha256` that of the bytes that were scanned. Each of `winners`
    is a unit, the image's rank among the unit's winners (0: the strongest), and its activation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    image: str
    key: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    winners: tuple[tuple[int, int, float], ...] = Field(min_length=1)


def plan_bytes(lines: Iterable[Winners]) -> bytes:
    """A plan: one JSON object a line. An activation is a float32, and is read as the same."""
    return b"".join(line.model_dump_json().encode() + b"\n" for line in lines)


def read_plan(data: bytes, where: str) -> list[Winners]:
    """The lines of the plan that stands at `where`, in order. Raises MessageError."""
    lines = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            lines.append(Winners.model_validate_json(line))
        except ValidationError as error:
            raise MessageError(
                f"plan {where} line {number} is none: {error.errors()[0]['msg']}; use the version that "
                "wrote it"
            ) from error
    return lines
