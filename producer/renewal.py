"""A lock in Redis that is held as long as its block takes, and is gone soon after a holder that dies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import redis

_TIMEOUT_S = 30.0
_RENEW_EVERY_S = _TIMEOUT_S / 5


@contextmanager
def renewed(client: redis.Redis, key: str) -> Iterator[None]:
    """Hold the lock `key`, once nobody else does. Raises redis.RedisError."""
    lock = client.lock(key, timeout=_TIMEOUT_S, thread_local=False)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(_RENEW_EVERY_S):
            # What cannot be renewed now may be at the next turn.
            with suppress(redis.RedisError):
                lock.reacquire()

    with lock:
        thread = threading.Thread(target=renew, name=f"renew {key}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
