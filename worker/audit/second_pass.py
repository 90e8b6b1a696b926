"""The messages for an audit's second pass: who ends the scan asks for the atlas, and several may."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

import redis

from worker.contract import publishing, queue
from worker.contract.errors import BrokerError
from worker.contract.jobs import Job, ShardMessage
from worker.storage.standing import Todo

logger = logging.getLogger(__name__)

Send: TypeAlias = Callable[[Sequence[ShardMessage], int], None]
"""Sends messages with a priority, as kombu counts it. Raises BrokerError."""

_LOCK_S = 60
"""How long others wait for a worker that asks for an atlas: the lock of one that died is gone then."""


def ask_for_atlas(job: Job, place: str, todo: Todo, client: redis.Redis, send: Send) -> None:
    """Send a message for each shard of the atlas that is to do and that no message asks for.

    One worker at a time, so that of several that end a scan together only the first has to. Raises
    BrokerError; a worker that asks again after it, or after another's death, loses nothing.
    """
    try:
        with client.lock(f"{queue.KEY_PREFIX}asking:{job.id}", timeout=_LOCK_S):
            waiting = publishing.queued(client, job.id)
            missing = [shard for shard in todo.shards if shard not in waiting]
            send(
                publishing.messages_for(job.id, place, todo.attempt, missing), queue.PRIORITIES[job.priority]
            )
            publishing.take_turns(client)
    except redis.RedisError as error:
        raise BrokerError(f"Redis does not take the messages for the atlas: {error}; see to it") from error
    logger.info("%d shards of the atlas are enqueued", len(missing))
