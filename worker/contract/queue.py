"""Names and settings of the queue that producer and workers must share. No Celery here.

Why each setting is as it is: measured with Celery 5.7 on Redis, see docs/queue.md.
"""

from __future__ import annotations

from typing import Any

QUEUE = "deconvoy"
TASK_SHARD = "deconvoy.shard"
KEY_PREFIX = "deconvoy:"

JOBS_KEY = f"{KEY_PREFIX}jobs"
"""The Redis hash of jobs that were submitted: id -> place."""

WHOLE_JOB = "job"
"""Field of a job's errors that concerns all its shards, such as weights that do not load."""

LIVE_KEYS_TTL_S = 7 * 24 * 3600
"""How long the counters and errors of a job that nobody works on stay in Redis."""


def celery_url(redis_url: str) -> str:
    """The same Redis as kombu spells it: it knows `redis+socket://` where redis-py knows `unix://`."""
    return (
        "redis+socket://" + redis_url.removeprefix("unix://")
        if redis_url.startswith("unix://")
        else redis_url
    )


def progress_key(job: str) -> str:
    """The Redis hash of a job's live counters: shard number -> `done/failed`. Rebuildable, expires."""
    return f"{KEY_PREFIX}progress:{job}"


def errors_key(job: str) -> str:
    """The Redis hash of what failed for good: shard number or `WHOLE_JOB` -> `ErrorClass: message`."""
    return f"{KEY_PREFIX}error:{job}"


def shared_config(shard_time_limit_s: int) -> dict[str, Any]:
    """The part of Celery's configuration that publisher and consumer must agree on."""
    return {
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "task_default_queue": QUEUE,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {
            # The timeout counts from delivery: several times the hard limit, or work runs twice.
            "visibility_timeout": 4 * shard_time_limit_s,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": 30,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "global_keyprefix": KEY_PREFIX,
            "queue_order_strategy": "priority",
        },
    }
