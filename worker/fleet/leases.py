"""A worker's signs of life, and the return of what dead ones held.

By itself kombu gives a dead worker's message back after the visibility timeout, which must be longer
than any shard takes. Here each worker keeps a key alive in Redis, and any worker that lives gives back
what those hold whose key has expired. To err costs time only: two workers on one shard do no harm.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import redis

from worker.contract import queue
from worker.fleet.deliveries import Deliveries

logger = logging.getLogger(__name__)

_SIGNS_A_LEASE = 6
_LOOKS_A_LEASE = 4
_RESTORING_KEY = f"{queue.KEY_PREFIX}restoring"

# Only if the message is still held: its worker may have ended it meanwhile. It goes to the right end of
# its list, from which it is taken next.
_GIVE_BACK = """
if redis.call("HDEL", KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call("ZREM", KEYS[2], ARGV[1])
redis.call("RPUSH", KEYS[3], ARGV[2])
return 1
"""


@contextmanager
def keeping_lease(redis_url: str, worker: str, lease_s: int) -> Iterator[Leases]:
    """Within the block a thread keeps the lease of `worker`, and gives back what dead ones held.

    While Redis does not answer, the log says so and the thread goes on.
    """
    ended = threading.Event()
    with redis.Redis.from_url(redis_url, decode_responses=True, socket_timeout=10) as client:
        leases = Leases(client, worker, lease_s)

        def keep() -> None:
            while True:
                try:
                    leases.renew()
                    for job, shard in leases.restore_lost():
                        logger.warning("job %s shard %d: its worker is gone, given back", job, shard)
                except redis.RedisError as error:
                    logger.warning("Redis did not take this worker's sign of life: %s", error)
                if ended.wait(lease_s / _SIGNS_A_LEASE):
                    return

        thread = threading.Thread(target=keep, name="deconvoy-lease", daemon=True)
        thread.start()
        try:
            yield leases
        finally:
            ended.set()
            thread.join()
            with suppress(redis.RedisError):  # the lease ends by itself soon
                Deliveries(client, worker).end_all()
                leases.end()


class Leases:
    """One worker's lease: it counts as alive for `lease_s` seconds after its last sign of life.

    `client` decodes responses. Every method raises redis.RedisError.
    """

    def __init__(self, client: redis.Redis, worker: str, lease_s: int) -> None:
        self._client = client
        self._worker = worker
        self._lease_s = lease_s

    def renew(self) -> None:
        """Give a sign of life."""
        self._client.set(queue.alive_key(self._worker), 1, ex=self._lease_s)

    def end(self) -> None:
        """Say goodbye: what this worker holds may be given back at once."""
        self._client.delete(queue.alive_key(self._worker))

    def hold(self, tag: str) -> None:
        """Say that this worker has the message `tag`; where Redis does not take that, the log says so."""
        try:
            self._client.hset(queue.HOLDERS_KEY, tag, self._worker)
        except redis.RedisError as error:
            logger.warning("Redis was not told who holds a message: %s", error)

    def restore_lost(self) -> list[tuple[str, int]]:
        """Put messages that dead workers hold back into the queue: (job, shard) of each.

        One worker does it at a time, a few times in a lease at most.
        """
        if not self._client.set(
            _RESTORING_KEY, self._worker, nx=True, ex=max(1, self._lease_s // _LOOKS_A_LEASE)
        ):
            return []
        holders = _text(self._client.hgetall(queue.HOLDERS_KEY))
        held = _text(self._client.hgetall(queue.UNACKED_KEY))
        ended = [tag for tag in holders if tag not in held]
        if ended:
            self._client.hdel(queue.HOLDERS_KEY, *ended)
        restored = []
        for tag, value in held.items():
            message = json.loads(value)[0]
            job = message["headers"].get(queue.JOB_HEADER)
            shard = message["headers"].get(queue.SHARD_HEADER)
            if job is not None and shard is not None and self._is_lost(tag, holders.get(tag)):
                restored += [(job, shard)] * self._give_back(tag, message)
        return restored

    def _is_lost(self, tag: str, holder: str | None) -> bool:
        if holder is not None:
            return not self._client.exists(queue.alive_key(holder))
        # A worker says that it holds a message as soon as it has it: this one died in between.
        delivered_at = self._client.zscore(queue.UNACKED_INDEX_KEY, tag)
        return delivered_at is not None and time.time() - delivered_at > self._lease_s

    def _give_back(self, tag: str, message: dict[str, object]) -> int:
        properties = message["properties"]
        assert isinstance(properties, dict)  # noqa: S101 (kombu's own message)
        # A tag of its own: if the worker that held it lives after all, its acknowledgement is not for this.
        properties["delivery_tag"] = str(uuid.uuid4())
        key = queue.list_key(int(properties.get("priority") or 0))
        keys = [queue.UNACKED_KEY, queue.UNACKED_INDEX_KEY, key]
        return int(self._client.eval(_GIVE_BACK, len(keys), *keys, tag, json.dumps(message)))


def _text(fields: Mapping[Any, Any]) -> dict[str, str]:
    """What a client that decodes gives, as the type that it has."""
    return {str(name): str(value) for name, value in fields.items()}
