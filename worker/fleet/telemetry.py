"""What a worker has done, as totals in Redis: its child writes them, the launcher's metrics read them.

They inform and decide nothing: where Redis does not take them, work goes on and the log says so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import redis
from redis.client import Pipeline

from worker.contract import queue

logger = logging.getLogger(__name__)

_TTL_S = 24 * 3600
_STAGE = "seconds:"


@dataclass(frozen=True)
class Totals:
    """What one worker has done since it was started.

    `stages` is seconds by stage. Memory is as it was after the last shard: the process' peak, and what
    all processes together held of the GPU, None on a CPU.
    """

    images_ok: int = 0
    images_failed: int = 0
    shards_ok: int = 0
    shards_failed: int = 0
    stages: Mapping[str, float] = field(default_factory=dict)
    peak_rss_bytes: int | None = None
    gpu_used_bytes: int | None = None
    gpu_total_bytes: int | None = None


class Telemetry:
    """The totals of one worker. `client` decodes responses."""

    def __init__(self, client: redis.Redis, worker: str) -> None:
        self._client = client
        self._key = totals_key(worker)

    def add_shard(self, n_ok: int, n_failed: int, stages: Mapping[str, float], peak_rss_bytes: int) -> None:
        """Count a shard that is done: images that are well or failed, and the seconds of its stages."""
        with self._sent() as pipe:
            pipe.hincrby(self._key, "shards_ok", 1)
            pipe.hincrby(self._key, "images_ok", n_ok)
            pipe.hincrby(self._key, "images_failed", n_failed)
            for stage, seconds in stages.items():
                pipe.hincrbyfloat(self._key, _STAGE + stage, seconds)
            pipe.hset(self._key, "peak_rss_bytes", str(peak_rss_bytes))
            for name, n_bytes in _gpu_memory().items():
                pipe.hset(self._key, name, str(n_bytes))

    def add_failed_shard(self) -> None:
        """Count a shard that has failed for good."""
        with self._sent() as pipe:
            pipe.hincrby(self._key, "shards_failed", 1)

    @contextmanager
    def _sent(self) -> Iterator[Pipeline]:
        """Send what the block puts into the pipeline."""
        try:
            with self._client.pipeline() as pipe:
                yield pipe
                pipe.expire(self._key, _TTL_S)
                pipe.execute()
        except redis.RedisError as error:
            logger.warning("Redis did not take this worker's totals: %s", error)


def totals_key(worker: str) -> str:
    """The Redis hash of a worker's totals; expires a day after its last shard."""
    return f"{queue.KEY_PREFIX}worker:{worker}"


def totals_of(fields: Mapping[str, str]) -> Totals:
    """Read the hash; fields that are missing have never been counted."""

    def integer(name: str) -> int | None:
        return int(fields[name]) if name in fields else None

    return Totals(
        images_ok=integer("images_ok") or 0,
        images_failed=integer("images_failed") or 0,
        shards_ok=integer("shards_ok") or 0,
        shards_failed=integer("shards_failed") or 0,
        stages={
            name.removeprefix(_STAGE): float(value)
            for name, value in fields.items()
            if name.startswith(_STAGE)
        },
        peak_rss_bytes=integer("peak_rss_bytes"),
        gpu_used_bytes=integer("gpu_used_bytes"),
        gpu_total_bytes=integer("gpu_total_bytes"),
    )


def read_totals(client: redis.Redis, workers: Sequence[str]) -> list[Totals]:
    """The totals of each of `workers`. Raises redis.RedisError."""
    with client.pipeline() as pipe:
        for worker in workers:
            pipe.hgetall(totals_key(worker))
        return [totals_of(fields) for fields in pipe.execute()]


def _gpu_memory() -> dict[str, int]:
    """The memory of the GPU that this process computes on; empty on a CPU."""
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's
        return {}
    free, total = torch.cuda.mem_get_info()
    return {"gpu_used_bytes": total - free, "gpu_total_bytes": total}
