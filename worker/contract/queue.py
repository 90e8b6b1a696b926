"""Names and settings of the queue that producer and workers must share. No Celery here.

Why each setting is as it is: measured with Celery 5.7 on Redis, see docs/queue.md.
"""

from __future__ import annotations

from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlencode

QUEUE = "deconvoy"
TASK_SHARD = "deconvoy.shard"
KEY_PREFIX = "deconvoy:"

JOBS_KEY = f"{KEY_PREFIX}jobs"
"""The Redis hash of jobs that were submitted: id -> place."""

Priority = Literal["high", "normal", "low"]
PRIORITIES: Final[dict[Priority, int]] = {"high": 0, "normal": 3, "low": 6}
"""As kombu counts them: the list of a lower number is emptied first."""

_PRIORITY_STEPS = (0, 3, 6, 9)
_SEPARATOR = "\x06\x16"

UNACKED_KEY = f"{KEY_PREFIX}unacked"
"""The Redis hash where kombu keeps what workers hold: delivery tag -> [message, exchange, routing key]."""

UNACKED_INDEX_KEY = f"{KEY_PREFIX}unacked_index"
"""The sorted set of the same tags by the time of their delivery."""

HOLDERS_KEY = f"{KEY_PREFIX}holders"
"""The hash of which worker holds which message: delivery tag -> the worker's name."""

JOB_HEADER = "deconvoy_job"
SHARD_HEADER = "deconvoy_shard"
ATTEMPT_HEADER = "deconvoy_attempt"
"""Headers of a message that say, without its body, what it asks for."""


def list_key(priority: int) -> str:
    """The Redis list where messages of a priority wait, as kombu names it."""
    step = max(step for step in _PRIORITY_STEPS if step <= priority)
    return f"{KEY_PREFIX}{QUEUE}" + (f"{_SEPARATOR}{step}" if step else "")


def list_keys() -> list[str]:
    """All of these lists; the first is emptied first."""
    return [list_key(step) for step in _PRIORITY_STEPS]


WHOLE_JOB = "job"
"""Field of a job's errors that concerns all its shards, such as weights that do not load."""

LIVE_KEYS_TTL_S = 7 * 24 * 3600
"""How long the counters and errors of a job that nobody works on stay in Redis."""


def celery_url(redis_url: str) -> str:
    """The same Redis as kombu spells it.

    It knows `redis+socket://` where redis-py knows `unix://`, and does not check the certificate of a
    `rediss://` unless it is told to.
    """
    url, _, query = redis_url.partition("?")
    options = dict(parse_qsl(query))
    if url.startswith("unix://"):
        url = "redis+socket://" + url.removeprefix("unix://")
        if "db" in options:
            options["virtual_host"] = options.pop("db")
    elif url.startswith("rediss://"):
        options.setdefault("ssl_cert_reqs", "required")
    return f"{url}?{urlencode(options)}" if options else url


def progress_key(job: str) -> str:
    """The Redis hash of a job's live counters: shard number -> `done/failed`. Rebuildable, expires."""
    return f"{KEY_PREFIX}progress:{job}"


def errors_key(job: str) -> str:
    """The Redis hash of what failed for good: shard number or `WHOLE_JOB` -> `ErrorClass: message`."""
    return f"{KEY_PREFIX}error:{job}"


def notes_key(job: str) -> str:
    """The Redis hash of what keeps shards waiting: shard number -> one line."""
    return f"{KEY_PREFIX}notes:{job}"


def deliveries_key(job: str) -> str:
    """The Redis hash of a job's deliveries that were begun and not ended, and of who died of what.

    Fields: `<shard>` counts them, `<shard>:by` names the worker of the last, `<shard>:current` the image
    (its position) that a careful one works on, `<shard>:image:<position>` how often that image was it.
    """
    return f"{KEY_PREFIX}deliveries:{job}"


def alive_key(worker: str) -> str:
    """The Redis key that a worker keeps alive while it lives itself."""
    return f"{KEY_PREFIX}alive:{worker}"


def stages_key(job: str) -> str:
    """The Redis hash of where a job's time has gone: stage -> seconds, summed over finished shards."""
    return f"{KEY_PREFIX}stages:{job}"


def resources_key(job: str) -> str:
    """The Redis sorted set of the most that any finished shard took: a key of `Resources` -> its score."""
    return f"{KEY_PREFIX}resources:{job}"


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
            "priority_steps": list(_PRIORITY_STEPS),
        },
    }
