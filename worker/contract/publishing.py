"""How messages get into the queue: one way for the producer and for workers. No Celery here; it is handed in.

Every `client` decodes responses. What Redis and kombu raise is translated by the caller.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from worker.contract import queue
from worker.contract.jobs import ShardMessage

if TYPE_CHECKING:
    import redis

# Takes a priority's list (consumed from its right end) and deals it out job by job, one message each in
# turn; within a job the order stays. It is built beside and moved into place: nothing can be lost between.
_DEAL_OUT = """
local messages = redis.call("LRANGE", KEYS[1], 0, -1)
local by_job, jobs, most = {}, {}, 0
for i = #messages, 1, -1 do
  local job = string.match(messages[i], '"' .. ARGV[1] .. '":%s*"([^"]*)"') or ""
  if not by_job[job] then
    by_job[job] = {}
    jobs[#jobs + 1] = job
  end
  table.insert(by_job[job], messages[i])
  most = math.max(most, #by_job[job])
end
if #jobs < 2 then
  return #jobs
end
redis.call("DEL", KEYS[2])
for turn = 1, most do
  for _, job in ipairs(jobs) do
    if by_job[job][turn] then
      redis.call("LPUSH", KEYS[2], by_job[job][turn])
    end
  end
end
redis.call("RENAME", KEYS[2], KEYS[1])
return #jobs
"""


def queued(client: redis.Redis, job_id: str, attempt: int = 0, *, held: bool = True) -> set[int]:
    """The shards of a job's attempt that a message asks for: waiting, or, with `held`, with a worker."""
    messages = [json.loads(value)[0] for value in client.hvals(queue.UNACKED_KEY) if held]
    for key in queue.list_keys():
        messages += map(json.loads, client.lrange(key, 0, -1))
    headers = [message.get("headers", {}) for message in messages]
    return {
        header[queue.SHARD_HEADER]
        for header in headers
        if header.get(queue.JOB_HEADER) == job_id and header.get(queue.ATTEMPT_HEADER, 0) == attempt
    }


def messages_for(job_id: str, place: str, attempt: int, shards: Iterable[int]) -> list[ShardMessage]:
    """A message for each of the shards, in their order."""
    return [ShardMessage(job=job_id, place=place, shard=shard, attempt=attempt) for shard in shards]


def send(app: Any, messages: Iterable[ShardMessage], priority: int) -> None:
    """Send messages through the Celery application `app`, over one connection.

    `priority` is as kombu counts it, one of `queue.PRIORITIES`.
    """
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as publisher:
        for message in messages:
            app.send_task(
                queue.TASK_SHARD,
                args=[message.model_dump(mode="json")],
                queue=queue.QUEUE,
                priority=priority,
                headers={
                    queue.JOB_HEADER: message.job,
                    queue.SHARD_HEADER: message.shard,
                    queue.ATTEMPT_HEADER: message.attempt,
                },
                # Else a worker would put its own limits into the message, for whoever takes it.
                time_limit=None,
                soft_time_limit=None,
                producer=publisher,
            )


def take_turns(client: redis.Redis) -> None:
    """Deal out what waits, so that jobs of one priority take turns."""
    for key in queue.list_keys():
        client.eval(_DEAL_OUT, 2, key, f"{key}:dealt", queue.JOB_HEADER)
