"""Who works on which shard, and which shards and images have cost a worker its life.

Kept in Redis, and the only thing there that decides anything: a process that is killed leaves no trace
of its own. Where Redis forgets it, a killer image is only found later.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import redis

from worker.contract import queue

logger = logging.getLogger(__name__)

CAREFUL_FROM_LOSSES = 2
"""From so many losses on, a shard is worked on one image at a time."""

QUARANTINE_FROM_DEATHS = 3
"""Once as the image that was worked on when a careful worker died, and twice more alone at the end."""

MOST_LOSSES = 50
"""A shard that costs so many workers is given up: something else than an image is at fault."""


@dataclass(frozen=True)
class History:
    """What is known of a shard at the start of a delivery: `losses` earlier ones never ended.

    `deaths`: position of an image -> how often a careful worker died while it worked on that image.
    """

    losses: int
    deaths: dict[int, int]

    @property
    def careful(self) -> bool:
        """Whether the shard is to be worked on one image at a time."""
        return self.losses >= CAREFUL_FROM_LOSSES

    @property
    def suspects(self) -> frozenset[int]:
        """Images that come last, alone."""
        return frozenset(self.deaths) - self.quarantined

    @property
    def quarantined(self) -> frozenset[int]:
        """Images that are not worked on any more."""
        return frozenset(image for image, n in self.deaths.items() if n >= QUARANTINE_FROM_DEATHS)


class Deliveries:
    """The deliveries of one worker; `client` decodes responses. `begin` and `end` raise redis.RedisError."""

    def __init__(self, client: redis.Redis, worker: str) -> None:
        self._client = client
        self._worker = worker

    @contextmanager
    def of(self, job: str, shard: int) -> Iterator[History]:
        """A delivery, counted from its begin to its ordinary end, whatever exception that is.

        Where Redis does not count it, the work goes on as if nothing had been before, and the log says so.
        """
        history = History(0, {})
        try:
            history = self.begin(job, shard)
        except redis.RedisError as error:
            logger.warning("Redis did not count this delivery: %s", error)
        try:
            yield history
        finally:
            try:
                self.end(job, shard)
            except redis.RedisError as error:
                logger.warning("Redis did not count the end of this delivery: %s", error)

    def begin(self, job: str, shard: int) -> History:
        """Count a delivery, and tell what became of those before it."""
        key = queue.deliveries_key(job)
        with self._client.pipeline() as pipe:
            pipe.hincrby(key, str(shard), 1)
            pipe.hset(key, f"{shard}:by", self._worker)
            pipe.hget(key, f"{shard}:current")
            pipe.hdel(key, f"{shard}:current")
            pipe.expire(key, queue.LIVE_KEYS_TTL_S)
            begun, _, current, _, _ = pipe.execute()
        if current is not None:
            self._client.hincrby(key, f"{shard}:image:{int(current)}", 1)
        start = f"{shard}:image:"
        deaths = {
            int(str(field).removeprefix(start)): int(n)
            for field, n in self._client.hscan_iter(key, match=f"{start}*", count=1000)
        }
        return History(int(begun) - 1, deaths)

    def on_image(self, job: str, shard: int, position: int | None) -> None:
        """A careful delivery begins with this image, or is done with all (None).

        Where Redis does not take that, the log says so.
        """
        key, field = queue.deliveries_key(job), f"{shard}:current"
        try:
            if position is None:
                self._client.hdel(key, field)
            else:
                self._client.hset(key, field, position)
        except redis.RedisError as error:
            logger.warning("Redis was not told of image %s: %s", position, error)

    def end_all(self) -> None:
        """Take back the deliveries of this worker, because it was told to stop: none of them is a death."""
        for key in self._client.scan_iter(match=queue.deliveries_key("*"), count=1000):
            job = str(key).removeprefix(queue.deliveries_key(""))
            for field, worker in self._client.hscan_iter(key, match="*:by", count=1000):
                if worker == self._worker:
                    self._take_back(job, str(field).removesuffix(":by"))

    def _take_back(self, job: str, shard: str) -> None:
        key = queue.deliveries_key(job)
        self._client.hdel(key, f"{shard}:by", f"{shard}:current")
        # What earlier ones died of stays known.
        if self._client.hincrby(key, shard, -1) <= 0:
            self._client.hdel(key, shard)

    def end(self, job: str, shard: int) -> None:
        """The delivery came to an ordinary end, good or bad: what was held against the shard is forgotten."""
        key = queue.deliveries_key(job)
        fields = [str(shard), f"{shard}:by", f"{shard}:current"]
        images = [field for field, _ in self._client.hscan_iter(key, match=f"{shard}:image:*", count=1000)]
        self._client.hdel(key, *fields, *images)
