"""What a job's watchers see in Redis: counters, errors, notes and times. It informs and decides nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import redis
from redis.client import Pipeline

from worker.contract import queue

logger = logging.getLogger(__name__)


class Live:
    """A job's live counters, errors and times in Redis.

    They inform and decide nothing: where Redis does not take them, work goes on and the log says so.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def progress(self, job: str, shard: int, n_done: int, n_failed: int) -> None:
        """Publish how many images of the shard are finished, and how many of them failed."""
        self._put(queue.progress_key(job), str(shard), f"{n_done}/{n_failed}")

    def error(self, job: str, field: str, text: str) -> None:
        """Publish that the shard `field`, or the whole job, has failed for good."""
        self._put(queue.errors_key(job), field, text)

    def note(self, job: str, shard: int, text: str | None) -> None:
        """Publish what a shard waits for; None: nothing any more."""
        key = queue.notes_key(job)
        with self._published(f"the note of shard {shard} of {job}", key) as pipe:
            if text is None:
                pipe.hdel(key, str(shard))
            else:
                pipe.hset(key, str(shard), text)

    def add_work(self, job: str, stages: Mapping[str, float], resources: Mapping[str, int]) -> None:
        """Publish what a shard took: seconds add up over shards, of a resource the most counts."""
        times, most = queue.stages_key(job), queue.resources_key(job)
        with self._published(f"the work of {job}", times, most) as pipe:
            for stage, seconds in stages.items():
                pipe.hincrbyfloat(times, stage, seconds)
            # A sorted set and not a hash: it keeps the greater of two scores in one step.
            pipe.zadd(most, dict(resources), gt=True)

    def _put(self, key: str, field: str, value: str) -> None:
        with self._published(f"{field} of {key}", key) as pipe:
            pipe.hset(key, field, value)

    @contextmanager
    def _published(self, what: str, *expiring: str) -> Iterator[Pipeline]:
        """Send what the block puts into the pipeline; the keys `expiring` go when nobody works any more."""
        try:
            with self._client.pipeline(transaction=False) as pipe:
                yield pipe
                for key in expiring:
                    pipe.expire(key, queue.LIVE_KEYS_TTL_S)
                pipe.execute()
        except redis.RedisError as error:
            logger.warning("Redis did not take %s: %s", what, error)
