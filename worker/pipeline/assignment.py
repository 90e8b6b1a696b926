"""What a worker is given to do of a job, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.contract import keys, records
from worker.pipeline.caution import Caution
from worker.pipeline.engine import Weights

NOTHING_WAITED: Mapping[str, int] = {"most_waiting_to_write": 0, "most_bytes_waiting_to_write": 0}
"""The resources of a shard without a backlog: see `records.RESOURCES_METADATA`."""


@dataclass(frozen=True)
class Assignment:
    """All images of a shard; or, in a later `attempt`, those that failed in all before.

    With `caution` they are worked on one at a time.
    """

    shard: int
    attempt: int = 0
    caution: Caution | None = None

    @property
    def record(self) -> str:
        """Where the record of the work will stand."""
        if self.attempt:
            return keys.retry_shard_key(self.attempt, self.shard)
        return keys.shard_key(self.shard)


@dataclass(frozen=True)
class ShardResult:
    """What became of a shard. `committed` is False if its record stood already.

    `stages` (seconds) and `resources` are what the work has taken; empty where the record stood before.
    """

    shard: int
    n_images: int
    n_failed: int
    committed: bool
    stages: dict[str, float] = field(default_factory=dict, compare=False)
    resources: dict[str, int] = field(default_factory=dict, compare=False)


def weights_metadata(weights: Weights) -> bytes:
    """What a record says of the weights: see `records.WEIGHTS_METADATA`."""
    return f"{weights.name} {weights.sha256}".encode()


def record_metadata(
    weights: Weights, stages: Mapping[str, float], resources: Mapping[str, int]
) -> dict[bytes, bytes]:
    """What a record says beside its rows: the weights, and what the work has taken."""
    return {
        **records.work_metadata(stages, resources),
        records.WEIGHTS_METADATA: weights_metadata(weights),
    }
