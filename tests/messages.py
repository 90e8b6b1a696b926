"""Messages as Celery puts them into Redis, and whatever else somebody could put there."""

from __future__ import annotations

import base64
import json
import os
import pickle
import uuid
from pathlib import Path
from typing import Any

from worker.contract import queue

NOTHING_AFTER = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def shard_message(place: Path | str, **fields: object) -> dict[str, object]:
    """What a message says; `fields` take the place of its own."""
    ours = {"format_version": 1, "job": "a-job", "place": str(place), "shard": 0, "attempt": 0}
    return {**ours, **fields}


def body_of(*arguments: object, after: object = NOTHING_AFTER, **keywords: object) -> bytes:
    """What Celery makes of a task's arguments."""
    return json.dumps([arguments, keywords, after]).encode()


def envelope(body: bytes, **outer: object) -> dict[str, Any]:
    """A message as it stands in the list, before it becomes JSON. `outer` takes the place of its parts."""
    task_id, tag = str(uuid.uuid4()), str(uuid.uuid4())
    return {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": queue.TASK_SHARD,
            "id": task_id,
            "shadow": None,
            "eta": None,
            "expires": None,
            "group": None,
            "group_index": None,
            "retries": 0,
            "timelimit": [None, None],
            "root_id": task_id,
            "parent_id": None,
            "argsrepr": "()",
            "kwargsrepr": "{}",
            "origin": "gen1@host",
            "ignore_result": True,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
        },
        "properties": {
            "correlation_id": task_id,
            "reply_to": str(uuid.uuid4()),
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue.QUEUE},
            "priority": 3,
            "body_encoding": "base64",
            "delivery_tag": tag,
        },
        **outer,
    }


def listed(message: object) -> bytes:
    """The bytes that stand in the list."""
    return json.dumps(message).encode()


def with_headers(message: dict[str, Any], **headers: object) -> dict[str, Any]:
    """The message with other headers."""
    return {**message, "headers": {**message["headers"], **headers}}


def with_properties(message: dict[str, Any], **properties: object) -> dict[str, Any]:
    """The message with other properties."""
    return {**message, "properties": {**message["properties"], **properties}}


class Pickled:
    """Makes a file when it is unpickled."""

    def __init__(self, trap: Path) -> None:
        self._trap = trap

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self._trap}",)


def pickled(trap: Path) -> bytes:
    """A pickle that makes the file `trap`."""
    return pickle.dumps(Pickled(trap))
