"""Whether a beat works: exit code 0, or 1 and a line that says what is wrong.

A beat that works holds RedBeat's lock and extends it every few seconds; 30 s after one that died or hangs,
the lock is gone. A Redis that does not answer is not the beat's fault: it waits for it by itself.
"""

from __future__ import annotations

import os
import sys

import redis

LOCK_KEY = "deconvoy:redbeat::lock"


def complaint(redis_url: str) -> str | None:
    """What is wrong with the beat that uses this Redis; None if it works."""
    try:
        with redis.Redis.from_url(redis_url, socket_timeout=5, socket_connect_timeout=5) as client:
            held = client.exists(LOCK_KEY)
    except redis.RedisError as error:
        sys.stderr.write(f"Redis does not answer: {error}\n")
        return None
    return None if held else "no beat holds the lock"


if __name__ == "__main__":
    sys.exit(complaint(os.environ["DECONVOY_REDIS_URL"]))
