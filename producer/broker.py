"""The producer's line to Redis: messages in, live counters and errors out.

Celery only publishes here; nothing is asked of it that Redis itself answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import redis

from worker.contract import publishing, queue
from worker.contract.errors import BrokerError, one_line
from worker.contract.jobs import Job, ShardMessage
from worker.contract.stages import slowest_stage
from worker.storage.standing import Todo

_TIMEOUT_S = 5


@dataclass(frozen=True)
class Live:
    """What workers have published about a job.

    `counters`: shard -> images finished, and how many of them failed; `errors`: shard number, or
    `WHOLE_JOB`, -> what it has failed with for good; `notes`: shard number -> what it waits for.
    """

    counters: dict[int, tuple[int, int]]
    errors: dict[str, str]
    notes: dict[str, str]
    stages: dict[str, float]
    resources: dict[str, int]

    @property
    def slowest_stage(self) -> str | None:
        """The stage that most work went into up to now."""
        return slowest_stage(self.stages)


class Broker:
    """The queue of one Redis. Every method raises BrokerError where Redis does not answer."""

    def __init__(self, redis_url: str, shard_time_limit_s: int) -> None:
        self._url = redis_url
        self._shard_time_limit_s = shard_time_limit_s
        self._client = redis.Redis.from_url(
            redis_url,
            decode_responses=True,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
        )

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def ping(self) -> None:
        """Ask for a sign of life."""
        with self._translated():
            self._client.ping()

    def enqueue(
        self, job: Job, place: str, todo: Todo, priority: queue.Priority, *, held_too: bool = False
    ) -> int:
        """Put one message for each shard that is not queued yet; returns their number.

        With `held_too` those that a worker holds come again. Jobs of one priority then take turns. Earlier
        errors of the job are forgotten.
        """
        queued = self.queued(job.id, todo.attempt, held=not held_too)
        missing = [shard for shard in todo.shards if shard not in queued]
        with self._translated():
            self._client.hset(queue.JOBS_KEY, job.id, place)
            self._client.delete(queue.errors_key(job.id), queue.notes_key(job.id))
        self._publish(
            publishing.messages_for(job.id, place, todo.attempt, missing), queue.PRIORITIES[priority]
        )
        with self._translated():
            publishing.take_turns(self._client)
        return len(missing)

    def queued(self, job_id: str, attempt: int = 0, *, held: bool = True) -> set[int]:
        """The shards of a job's attempt that a message asks for: waiting, or, with `held`, with a worker."""
        with self._translated():
            return publishing.queued(self._client, job_id, attempt, held=held)

    def place_of(self, job_id: str) -> str | None:
        """Where a job that was submitted through this Redis stands."""
        with self._translated():
            place = self._client.hget(queue.JOBS_KEY, job_id)
        return None if place is None else str(place)

    def live(self, job_id: str) -> Live:
        """What workers have published about a job."""
        with self._translated(), self._client.pipeline(transaction=False) as pipe:
            for key in (queue.progress_key, queue.errors_key, queue.notes_key, queue.stages_key):
                pipe.hgetall(key(job_id))
            pipe.zrange(queue.resources_key(job_id), 0, -1, withscores=True)
            progress, errors, notes, stages, resources = pipe.execute()
        pairs = ((int(shard), value.split("/")) for shard, value in progress.items())
        return Live(
            counters={shard: (int(done), int(failed)) for shard, (done, failed) in pairs},
            errors=errors,
            notes=notes,
            stages={stage: float(seconds) for stage, seconds in stages.items()},
            resources={name: int(most) for name, most in resources},
        )

    def jobs(self) -> dict[str, str]:
        """The jobs that were submitted through this Redis: id -> place."""
        with self._translated():
            jobs = self._client.hgetall(queue.JOBS_KEY)
        return {str(job): str(place) for job, place in jobs.items()}

    def _publish(self, messages: Iterable[ShardMessage], priority: int) -> None:
        from celery import Celery
        from kombu.exceptions import KombuError

        app = Celery("deconvoy", broker=queue.celery_url(self._url), set_as_current=False)
        app.conf.update(queue.shared_config(self._shard_time_limit_s))
        with self._translated((redis.RedisError, KombuError, OSError)):
            publishing.send(app, messages, priority)

    @contextmanager
    def _translated(self, foreign: tuple[type[Exception], ...] = (redis.RedisError,)) -> Iterator[None]:
        try:
            yield
        except foreign as error:
            raise BrokerError(
                f"Redis at {_without_password(self._url)} does not do its part: {one_line(error)}; "
                "start it, or correct DECONVOY_REDIS_URL"
            ) from error


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.rpartition("@")[2]
