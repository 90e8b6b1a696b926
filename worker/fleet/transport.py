"""The door of the queue: what in its list is no message of ours is logged and dropped, before Celery sees it.

kombu trusts what it takes from a list of Redis: bytes that are no JSON, or JSON without the fields that it
expects, end the worker. Anybody who may write to Redis could so end all workers, one after the other.
"""

from __future__ import annotations

import base64
import functools
import json
import logging
from typing import Annotated, Any, Literal

from kombu.transport import TRANSPORT_ALIASES, redis
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.contract import queue
from worker.contract.errors import MessageError

logger = logging.getLogger(__name__)

_LISTS = frozenset(key.removeprefix(queue.KEY_PREFIX).encode() for key in queue.list_keys())

MAX_MESSAGE_BYTES = 2**18
"""Ours have about a thousand."""

_Text = Annotated[str, Field(max_length=1024)]
_Name = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9_.:@-]*$")]


class _Checked(BaseModel):
    """What kombu or Celery read is of this shape; what neither reads may be anything."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _Headers(_Checked):
    """Celery's headers. None of those that have Celery do more than to run one task now."""

    task: Annotated[str, Field(max_length=128, pattern=r"^deconvoy\.[a-z_.]+$")]
    id: _Name
    root_id: _Name | None = None
    parent_id: _Name | None = None
    lang: _Name | None = None
    origin: _Text | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    retries: Annotated[int, Field(ge=0, le=1000)] = 0
    expires: _Text | None = None
    timelimit: tuple[None, None] | None = None
    ignore_result: bool | None = None
    eta: None = None
    group: None = None
    group_index: None = None
    shadow: None = None
    stamps: dict[str, None] | None = Field(default=None, max_length=0)
    stamped_headers: tuple[None, ...] | None = Field(default=None, max_length=0)
    replaced_task_nesting: Literal[0] | None = None
    compression: None = None
    job: Annotated[_Name | None, Field(alias=queue.JOB_HEADER)] = None
    shard: Annotated[int | None, Field(alias=queue.SHARD_HEADER)] = None
    attempt: Annotated[int | None, Field(alias=queue.ATTEMPT_HEADER)] = None


class _DeliveryInfo(_Checked):
    exchange: _Text
    routing_key: _Text


class _Properties(_Checked):
    delivery_tag: _Name
    delivery_info: _DeliveryInfo
    body_encoding: Literal["base64"]
    correlation_id: _Name | None = None
    reply_to: _Name | None = None
    priority: Annotated[int, Field(ge=0, le=9)] | None = None


class _Envelope(_Checked):
    body: str
    content_type: Annotated[Literal["application/json"], Field(alias="content-type")]
    content_encoding: Annotated[Literal["utf-8"], Field(alias="content-encoding")]
    headers: _Headers
    properties: _Properties


class _Nothing(_Checked):
    """What Celery is to do after a task: nothing."""

    callbacks: None = None
    errbacks: None = None
    chain: None = None
    chord: None = None


class _Body(_Checked):
    """Arguments, keyword arguments, and what comes after."""

    arguments: tuple[list[Any], dict[str, Any], _Nothing]


def check_message(data: bytes) -> None:
    """Raise MessageError unless `data` is a message that kombu and Celery can be given."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageError(f"it has {len(data)} bytes, more than {MAX_MESSAGE_BYTES}")
    try:
        # Once by Python's own parser too, which kombu uses: pydantic's takes deeper and other JSON.
        json.loads(data)
        envelope = _Envelope.model_validate_json(data)
        arguments = json.loads(base64.b64decode(envelope.body, validate=True))
        _Body.model_validate_json(json.dumps({"arguments": arguments}))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(ascii(part)[:80] for part in first["loc"])
        raise MessageError(f"{field or 'the whole'}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise MessageError(f"it is no JSON: {type(error).__name__}") from error


class _Client(redis.PrefixedStrictRedis):
    """Gives only messages."""

    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        answer = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]  # kombu's
        if command_name != "BRPOP" or not answer or answer[0] not in _LISTS:
            return answer
        try:
            check_message(answer[1])
        except MessageError as error:
            logger.error("refused a message, which is dropped: %s", error)
            # As if none had come in time.
            return None
        return answer


class _Channel(redis.Channel):
    def _get_client(self) -> Any:
        return functools.partial(_Client, global_keyprefix=self.global_keyprefix)


class Transport(redis.Transport):
    """kombu's Redis, behind the door."""

    Channel = _Channel


def use_door() -> None:
    """Let all connections that this process makes to a Redis from now on be such."""
    for alias in ("redis", "rediss"):
        TRANSPORT_ALIASES[alias] = "worker.fleet.transport:Transport"
