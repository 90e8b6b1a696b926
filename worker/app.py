"""The Celery application of a worker. Why each setting is as it is: docs/queue.md."""

from __future__ import annotations

import sys
from typing import Any

from celery import Celery

from worker.contract import queue
from worker.contract.errors import SettingsError
from worker.contract.settings import Settings, load_settings

TASK_OPTIONS: dict[str, Any] = {
    # A message is acknowledged when its shard is done; a process that dies gives it back.
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "task_retry_on_worker_lost": True,
}
WORKER_OPTIONS: dict[str, Any] = {
    "worker_pool": "prefork",
    "worker_pool_start_method": "spawn",
    "worker_concurrency": 1,
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    "worker_proc_alive_timeout": 120,
    "broker_connection_max_retries": None,
}


def create_app(settings: Settings) -> Celery:
    """The application that consumes the queue of `settings.redis_url`. Raises SettingsError."""
    if settings.redis_url is None:
        raise SettingsError("DECONVOY_REDIS_URL is not set: name the Redis that holds the queue")
    app = Celery("deconvoy")
    app.conf.update(
        queue.shared_config(settings.shard_time_limit_s),
        broker_url=queue.celery_url(settings.redis_url),
        imports=["worker.tasks"],
        task_time_limit=settings.shard_time_limit_s,
        worker_soft_shutdown_timeout=settings.shutdown_s,
        **TASK_OPTIONS,
        **WORKER_OPTIONS,
    )
    return app


def main(hostname: str) -> None:
    """Consume the queue until a signal ends it; `hostname` must differ between workers."""
    settings = load_settings()
    options = [
        "--hostname",
        hostname,
        "--loglevel",
        settings.log_level,
        "--without-gossip",
        "--without-mingle",
    ]
    create_app(settings).worker_main(["--quiet", "worker", *options])


if __name__ == "__main__":
    main(sys.argv[1])
