"""The producer's line to Redis: messages in, live counters and errors out.

Celery only publishes here; nothing is asked of it that Redis itself answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import redis

from worker.contract import queue
from worker.contract.errors import BrokerError
from worker.contract.jobs import Job, ShardMessage

_TIMEOUT_S = 5


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

    def enqueue(self, job: Job, place: str, shards: Iterable[int]) -> None:
        """Put one message for each shard, over one connection; earlier errors of the job are forgotten."""
        with self._translated():
            self._client.hset(queue.JOBS_KEY, job.id, place)
            self._client.delete(queue.errors_key(job.id))
        self._publish(ShardMessage(job=job.id, place=place, shard=shard) for shard in shards)

    def place_of(self, job_id: str) -> str | None:
        """Where a job that was submitted through this Redis stands."""
        with self._translated():
            place = self._client.hget(queue.JOBS_KEY, job_id)
        return None if place is None else str(place)

    def counters(self, job_id: str) -> dict[int, tuple[int, int]]:
        """Shard -> images finished, and how many of them failed; for the shards that workers have seen."""
        with self._translated():
            live = self._client.hgetall(queue.progress_key(job_id))
        pairs = ((int(shard), str(value).split("/")) for shard, value in live.items())
        return {shard: (int(done), int(failed)) for shard, (done, failed) in pairs}

    def errors(self, job_id: str) -> dict[str, str]:
        """Shard number, or `WHOLE_JOB`, -> what it has failed with for good."""
        with self._translated():
            errors = self._client.hgetall(queue.errors_key(job_id))
        return {str(field): str(text) for field, text in errors.items()}

    def _publish(self, messages: Iterable[ShardMessage]) -> None:
        from celery import Celery
        from kombu.exceptions import KombuError

        app = Celery("deconvoy", broker=queue.celery_url(self._url), set_as_current=False)
        app.conf.update(queue.shared_config(self._shard_time_limit_s))
        with (
            self._translated((redis.RedisError, KombuError, OSError)),
            app.connection_for_write() as connection,
            app.amqp.Producer(connection) as publisher,
        ):
            for message in messages:
                app.send_task(
                    queue.TASK_SHARD,
                    args=[message.model_dump(mode="json")],
                    queue=queue.QUEUE,
                    producer=publisher,
                )

    @contextmanager
    def _translated(self, foreign: tuple[type[Exception], ...] = (redis.RedisError,)) -> Iterator[None]:
        try:
            yield
        except foreign as error:
            raise BrokerError(
                f"Redis at {_without_password(self._url)} does not do its part: {_one_line(error)}; "
                "start it, or correct DECONVOY_REDIS_URL"
            ) from error


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.rpartition("@")[2]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
