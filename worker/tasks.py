"""Celery's doorway: each task hands its message to the runtime. No logic here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from celery import shared_task
from celery.exceptions import Reject, TimeLimitExceeded
from celery.signals import task_failure
from kombu.exceptions import KombuError

from worker.contract import publishing, queue
from worker.contract.errors import BrokerError, JobError, MessageError
from worker.contract.jobs import ShardMessage
from worker.contract.settings import load_settings
from worker.runtime import Runtime


@cache
def process_runtime() -> Runtime:
    """The runtime of this process. Raises SettingsError."""
    return Runtime(load_settings(), send)


def send(messages: Sequence[ShardMessage], priority: int) -> None:
    """Send messages through this worker's own application. Raises BrokerError."""
    try:
        publishing.send(shard.app, messages, priority)
    except (KombuError, OSError) as error:
        raise BrokerError(f"Redis does not take messages: {error}; see to it") from error


def work_on_shard(body: object = None, *_args: object, **_kwargs: object) -> None:
    """Work on one shard."""
    if not process_runtime().work(body):
        raise Reject(requeue=True)


def record_death(
    sender: Any = None, exception: BaseException | None = None, args: Any = (), **_: object
) -> None:
    """Publish what `work` itself could not: there is a bug."""
    if getattr(sender, "name", None) != queue.TASK_SHARD:
        return
    if isinstance(exception, TimeLimitExceeded):
        # No failure for good: the message goes back to the queue.
        return
    try:
        message = ShardMessage.from_body(args[0] if args else None)
    except MessageError:
        return
    error = JobError(f"shard {message.shard} was given up: {exception!r}; see the worker's log")
    process_runtime().record_failure(message, error)


shard = shared_task(name=queue.TASK_SHARD)(work_on_shard)
task_failure.connect(record_death)
