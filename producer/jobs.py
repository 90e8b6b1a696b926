"""Jobs: submitting them, and what the store and Redis say of them.

The store is the truth: a shard whose record stands is done, whatever Redis knows. Redis adds what is
under way, and why something stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Unpack

from producer.broker import Broker
from producer.planning import Plan, PlanOptions, make_plan
from producer.status import JobStatus, read_status
from producer.submission import standing_job, write_job
from worker.contract import jobs as contract
from worker.contract import keys
from worker.contract.errors import BrokerError, JobError, ObjectNotFound, SettingsError, UsageError
from worker.contract.jobs import Job
from worker.contract.queue import Priority
from worker.contract.settings import Settings, load_settings
from worker.storage import Store, open_store
from worker.storage.standing import is_cancelled, last_retry, still_to_do

if TYPE_CHECKING:
    import pyarrow as pa

_POLL_S = 0.3
_POLL_SHARE = 20
"""A poll may take one part in so many of the time: listing a large job's records is slow."""


@dataclass(frozen=True)
class Failure:
    """An image that could not be used, and why."""

    image: str
    status: str
    error: str
    message: str
    shard: int


class JobHandle:
    """A job that was submitted, wherever its workers are. `broker` is None where Redis is not known."""

    def __init__(self, job: Job, store: Store, broker: Broker | None) -> None:
        self.job = job
        self.store = store
        self.broker = broker

    def __repr__(self) -> str:
        what = "job" if self.job.audit is None else "audit"
        return f"<JobHandle of {what} {self.id}: {self.job.n_images} images, at {self.place}>"

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job.id

    @property
    def place(self) -> str:
        """The folder or bucket prefix that everything of the job stands under."""
        return self.store.place

    @property
    def report(self) -> str:
        """The place of the job's page."""
        return f"{self.place}/{keys.REPORT}"

    def missing_shards(self) -> list[int]:
        """The shards whose record does not stand yet."""
        return still_to_do(self.store, self.job).shards

    def status(self) -> JobStatus:
        """How far the job is; without Redis, by whole shards."""
        return read_status(self.job, self.store, self.broker)

    def wait(self, on_status: Callable[[JobStatus], None] | None = None) -> JobStatus:
        """Return when the job is finished; `on_status` is called several times a second at most.

        Raises JobError, with the reason, when nothing more will happen by itself.
        """
        while True:
            started = time.monotonic()
            status = self.status()
            if on_status is not None:
                on_status(status)
            if status.finished:
                return status
            if status.stopped:
                why = status.errors[0].partition(": ")[2] if status.errors else "it is cancelled"
                raise JobError(why)
            time.sleep(max(_POLL_S, _POLL_SHARE * (time.monotonic() - started)))

    def index(self) -> pa.Table:
        """All rows of a finished job. Raises JobError while there is no index."""
        from worker.contract.records import from_parquet

        try:
            return from_parquet(self.store.read(keys.INDEX), keys.INDEX)
        except ObjectNotFound as error:
            raise JobError(f"job {self.id} has no index yet: wait until it is finished") from error

    def failures(self) -> Iterator[Failure]:
        """The images of a finished job that could not be used, in manifest order."""
        for line in self.store.read(keys.FAILURES).splitlines():
            yield Failure(**json.loads(line))

    def cancel(self) -> None:
        """Let no worker begin another shard; those under way are finished."""
        self.store.write(keys.CANCELLED, b"{}\n")

    def resume(self, *, failed: bool = False, priority: Priority | None = None) -> int:
        """Enqueue what is missing of the job, cancelled or not; returns the number of shards enqueued.

        With `failed`, images of a finished job that are not `ok` are tried again. Raises JobError if it
        is not finished, UsageError if it is an audit, BrokerError.
        """
        if failed:
            self._begin_retry()
        # What a worker holds of a cancelled job it may be about to drop: done twice is better than lost.
        was_cancelled = is_cancelled(self.store)
        self.store.delete(keys.CANCELLED)
        return enqueue_missing(self, priority, held_too=was_cancelled)

    def _begin_retry(self) -> None:
        if self.job.audit is not None:
            raise UsageError(
                f"{self.id} is an audit, whose statistics are of all images: audit again with --baseline "
                f"{self.place}, which computes only what is not well in this one"
            )
        todo = still_to_do(self.store, self.job)
        if todo.shards or not self.store.exists(keys.REPORT):
            raise JobError(f"job {self.id} is not finished: resume it without --failed, then try again")
        shards = tuple(sorted({failure.shard for failure in self.failures()}))
        if not shards:
            return
        if todo.attempt == contract.MAX_ATTEMPTS:
            raise JobError(
                f"job {self.id} was tried {todo.attempt} times: submit what still fails as a new job"
            )
        retry = contract.Retry(attempt=todo.attempt + 1, shards=shards)
        # In this order: a job without its page is not finished, and a stop in between loses nothing.
        self.store.delete(keys.REPORT)
        self.store.write(keys.retry_key(retry.attempt), retry.to_json(), if_absent=True)


def submit(
    sources: str | Iterable[str],
    *,
    out: str,
    settings: Settings | None = None,
    **options: Unpack[PlanOptions],
) -> JobHandle:
    """Write the job under the folder or prefix `out` and enqueue its shards in the Redis of the settings.

    The same request twice is the same job: only what is missing is enqueued again, also if it was cancelled
    meanwhile. Raises UsageError, SettingsError if no Redis is set, WeightsError, JobError, StorageError,
    BrokerError.
    """
    names = [sources] if isinstance(sources, str) else list(sources)
    return submit_plan(names, out, make_plan(options), settings)


def submit_plan(sources: list[str], out: str, plan: Plan, settings: Settings | None = None) -> JobHandle:
    """Write the job of a plan and enqueue its shards. Raises SettingsError, and what else `submit` raises."""
    settings = settings or load_settings()
    if settings.redis_url is None:
        raise SettingsError("DECONVOY_REDIS_URL is not set: name the Redis that workers listen to")
    broker = Broker(settings.redis_url, settings.shard_time_limit_s)
    broker.ping()
    handle = prepare(sources, out, plan, local=False, allowed_roots=settings.allowed_roots)
    handle.broker = broker
    handle.resume(priority=plan.priority)
    return handle


def prepare(
    sources: list[str], out: str, plan: Plan, *, local: bool, allowed_roots: Sequence[str] = ()
) -> JobHandle:
    """Write the job, or find it as it stands; nothing is enqueued. See `write_job`."""
    job, store = write_job(sources, out, plan, local=local, allowed_roots=allowed_roots)
    return JobHandle(job, store, None)


def enqueue_missing(handle: JobHandle, priority: Priority | None = None, *, held_too: bool = False) -> int:
    """Enqueue the shards whose record is missing and that no message asks for; returns their number.

    Where only the index or the page is missing, one shard that is done is enqueued: it finishes the job.
    `priority`: None is the job's own. `held_too`: a message that a worker has already does not count.
    Raises BrokerError, also where the handle knows no Redis.
    """
    if handle.broker is None:
        raise BrokerError(f"job {handle.id} has no Redis to be enqueued in: set DECONVOY_REDIS_URL")
    todo = still_to_do(handle.store, handle.job)
    if not todo.shards and not handle.store.exists(keys.REPORT):
        todo = replace(todo, shards=[_any_shard(handle.store)])
    return handle.broker.enqueue(
        handle.job, handle.place, todo, priority or handle.job.priority, held_too=held_too
    )


def _any_shard(store: Store) -> int:
    """A shard that is done, of the last attempt if there was one."""
    retry = last_retry(store)
    return retry.shards[0] if retry is not None else 0


def list_jobs(out: str | None, settings: Settings | None = None) -> dict[str, str]:
    """Jobs by id, with their places: those under `out`, which works without Redis, or those Redis knows.

    Raises StorageError; SettingsError if neither a place nor a Redis is named, BrokerError.
    """
    if out is not None:
        store = open_store(out)
        found = (name for name in store.folders() if store.exists(f"{name}/{keys.JOB}"))
        return {job: f"{store.place}/{job}" for job in found}
    settings = settings or load_settings()
    if settings.redis_url is None:
        raise SettingsError(
            "DECONVOY_REDIS_URL is not set: name the Redis, or the folder that holds the jobs"
        )
    broker = Broker(settings.redis_url, settings.shard_time_limit_s)
    try:
        return broker.jobs()
    finally:
        broker.close()


def open_job(job: str, settings: Settings | None = None) -> JobHandle:
    """A job by its place, which works without Redis, or by the id that Redis knows. Raises JobError."""
    settings = settings or load_settings()
    broker = None
    if settings.redis_url is not None:
        broker = Broker(settings.redis_url, settings.shard_time_limit_s)
    store = open_store(job)
    found = standing_job(store)
    if found is None and broker is not None and "/" not in job:
        place = broker.place_of(job)
        if place is not None:
            store = open_store(place)
            found = standing_job(store)
    if found is None:
        where = "" if broker else ", and DECONVOY_REDIS_URL, which knows the ids, is not set"
        raise JobError(f"there is no job {job!r}{where}: name the job's place, OUT/<job id>")
    return JobHandle(found, store, broker)


@contextmanager
def closing(handle: JobHandle) -> Iterator[JobHandle]:
    """Close the handle's connections at the end."""
    try:
        yield handle
    finally:
        if handle.broker is not None:
            handle.broker.close()
