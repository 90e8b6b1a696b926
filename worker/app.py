"""The Celery application of a worker. Why each setting is as it is: docs/queue.md."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from celery import Celery
from celery.signals import (
    after_setup_logger,
    after_setup_task_logger,
    celeryd_after_setup,
    task_postrun,
    task_prerun,
    task_received,
    worker_ready,
)
from celery.utils.log import get_multiprocessing_logger

from worker import logs, names
from worker.contract import queue
from worker.contract.errors import MessageError, SettingsError
from worker.contract.jobs import ShardMessage
from worker.contract.settings import Settings, load_settings
from worker.fleet import transport
from worker.fleet.leases import Leases, keeping_lease

_PR_SET_PDEATHSIG = 1

TASK_OPTIONS: dict[str, Any] = {
    # A message is acknowledged when its shard is done; a process that dies, or is ended by the time
    # limit, gives it back. `worker.fleet.deliveries` sees to it that this comes to an end.
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "task_acks_on_timeout": False,
}
WORKER_OPTIONS: dict[str, Any] = {
    "worker_pool": "prefork",
    "worker_pool_start_method": "spawn",
    "worker_concurrency": 1,
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    "worker_proc_alive_timeout": 120,
    "broker_connection_max_retries": None,
    # Whoever can write to Redis could end all workers with one word; launchers are told by signals instead.
    "worker_enable_remote_control": False,
    # So that Flower sees what they do: it cannot ask them to tell it.
    "worker_send_task_events": True,
}


def create_app(settings: Settings) -> Celery:
    """The application that consumes the queue of `settings.redis_url`. Raises SettingsError."""
    if settings.redis_url is None:
        raise SettingsError("DECONVOY_REDIS_URL is not set: name the Redis that holds the queue")
    transport.use_door()
    app = Celery("deconvoy")
    app.conf.update(
        queue.shared_config(settings.shard_time_limit_s),
        broker_url=queue.celery_url(settings.redis_url),
        imports=["worker.tasks"],
        task_time_limit=settings.shard_time_limit_s,
        **TASK_OPTIONS,
        **WORKER_OPTIONS,
    )
    return app


def main() -> None:
    """Consume the queue until a signal ends it, under the name that the launcher has given."""
    settings = load_settings()
    logs.configure(settings.log_format, settings.log_level, names.own_name())
    _end_with_launcher()
    options = [
        "--hostname",
        names.own_name(),
        "--loglevel",
        settings.log_level,
        "--without-gossip",
        "--without-mingle",
    ]
    app = create_app(settings)
    assert settings.redis_url is not None  # noqa: S101 (`create_app` has seen to it)
    with keeping_lease(settings.redis_url, names.own_name(), settings.lease_s) as leases:
        task_received.connect(partial(hold_message, leases), weak=False)
        app.worker_main(["--quiet", "worker", *options])


def format_logs(logger: logging.Logger, **_: object) -> None:
    """Give Celery's handlers our format, in the parent and in its child."""
    formatter = logs.formatter(load_settings().log_format, names.own_name())
    for handler in (*logger.handlers, *get_multiprocessing_logger().handlers):
        handler.setFormatter(formatter)


def silence_starting_child(**_: object) -> None:
    """Without this variable the child says nothing before its log lines are in our format."""
    os.environ.pop("_MP_FORK_LOGLEVEL_", None)


def hold_message(leases: Leases, request: Any = None, **_: object) -> None:
    """From here on the message comes back if this worker dies."""
    leases.hold(request.message.delivery_tag)


def begin_shard(args: Sequence[object] = (), **_: object) -> None:
    """Lines are about the message's shard from here on: Celery's own too, such as a bug's traceback."""
    try:
        message = ShardMessage.from_body(args[0] if args else None)
    except MessageError:
        return
    logs.begin_shard(message.job, message.shard)


def end_shard(**_: object) -> None:
    """The lines that follow are about no shard."""
    logs.end_shard()


def leave_hang_up_to_launcher(**_: object) -> None:
    """Celery would start itself anew when its terminal closes; the launcher ends it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _end_with_launcher() -> None:
    """On Linux: a launcher that is killed takes its workers along, and they give back what they hold."""
    if sys.platform == "linux":
        prctl: Callable[..., int] = ctypes.CDLL(None).prctl
        prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)


after_setup_logger.connect(format_logs)
after_setup_task_logger.connect(format_logs)
celeryd_after_setup.connect(silence_starting_child)
task_prerun.connect(begin_shard)
task_postrun.connect(end_shard)
worker_ready.connect(leave_hang_up_to_launcher)
logs.leave_out_details_of_others()

if __name__ == "__main__":
    main()
