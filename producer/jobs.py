"""Jobs: submitting them, and what the store and Redis say of them.

The store is the truth: a shard whose record stands is done, whatever Redis knows. Redis adds what is
under way, and why something stopped.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from producer.broker import Broker
from producer.planning import Plan, PlanOptions, make_plan, shard_size_for
from producer.sources import STDIN, find_images
from worker.contract import jobs as contract
from worker.contract import keys, queue
from worker.contract.errors import BrokerError, JobError, ObjectNotFound, SettingsError
from worker.contract.jobs import Job, ManifestEntry
from worker.contract.settings import Settings, load_settings
from worker.storage import Store, open_store

if TYPE_CHECKING:
    import pyarrow as pa

_POLL_S = 0.3
_POLL_SHARE = 20
"""A poll may take one part in so many of the time: listing a large job's records is slow."""


@dataclass(frozen=True)
class Failure:
    """An image that could not be used, and why."""

    image: str
    error: str
    message: str


@dataclass(frozen=True)
class JobStatus:
    """How far a job is. `errors` names what has failed for good; `live` says whether Redis was asked."""

    id: str
    place: str
    n_images: int
    n_done: int
    n_failed: int
    n_shards: int
    n_shards_done: int
    finished: bool
    stuck: bool
    errors: tuple[str, ...]
    live: bool

    @property
    def state(self) -> str:
        """`finished`, `stopped` (nothing more will happen by itself) or `unfinished`."""
        return "finished" if self.finished else "stopped" if self.stuck else "unfinished"


class JobHandle:
    """A job that was submitted, wherever its workers are. `broker` is None where Redis is not known."""

    def __init__(self, job: Job, store: Store, broker: Broker | None) -> None:
        self.job = job
        self.store = store
        self.broker = broker

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job.id

    @property
    def place(self) -> str:
        """The folder that everything of the job stands under."""
        return self.store.place

    @property
    def report(self) -> str:
        """The place of the job's page."""
        return f"{self.place}/{keys.REPORT}"

    def missing_shards(self) -> list[int]:
        """The shards whose record does not stand yet."""
        standing = set(self.store.list(keys.SHARDS))
        return [shard for shard in range(self.job.n_shards) if keys.shard_key(shard) not in standing]

    def status(self) -> JobStatus:
        """How far the job is; without Redis, by whole shards."""
        counters, errors, live = self._ask_redis()
        missing = self.missing_shards()
        finished = not missing and self.store.exists(keys.REPORT)
        done_before = self.job.n_images - sum(map(self._n_images_in, missing))
        return JobStatus(
            id=self.id,
            place=self.place,
            n_images=self.job.n_images,
            n_done=done_before + sum(counters.get(shard, (0, 0))[0] for shard in missing),
            n_failed=len(self.failures()) if finished else sum(failed for _, failed in counters.values()),
            n_shards=self.job.n_shards,
            n_shards_done=self.job.n_shards - len(missing),
            finished=finished,
            stuck=not finished and _is_stuck(missing, errors),
            errors=() if finished else tuple(dict.fromkeys(errors.values())),
            live=live,
        )

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
            if status.stuck:
                raise JobError(status.errors[0].partition(": ")[2])
            time.sleep(max(_POLL_S, _POLL_SHARE * (time.monotonic() - started)))

    def index(self) -> pa.Table:
        """All rows of a finished job. Raises JobError while there is no index."""
        from worker.contract.records import from_parquet

        return from_parquet(self._index_bytes(), keys.INDEX)

    def failures(self) -> list[Failure]:
        """The images of a finished job that could not be used, in manifest order."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        columns = ["image", "status", "error", "message"]
        # Not pq.read_table: its reader threads may abort a process that ends soon after.
        table = pq.ParquetFile(pa.BufferReader(self._index_bytes())).read(columns=columns, use_threads=False)
        table = table.filter(pc.field("status") != "ok")
        by_image = {
            row["image"]: Failure(row["image"], row["error"] or "", row["message"] or "")
            for row in reversed(table.to_pylist())
        }
        return [*reversed(by_image.values())]

    def _index_bytes(self) -> bytes:
        try:
            return self.store.read(keys.INDEX)
        except ObjectNotFound as error:
            raise JobError(f"job {self.id} has no index yet: wait until it is finished") from error

    def _n_images_in(self, shard: int) -> int:
        return min(self.job.shard_size, self.job.n_images - shard * self.job.shard_size)

    def _ask_redis(self) -> tuple[dict[int, tuple[int, int]], dict[str, str], bool]:
        if self.broker is None:
            return {}, {}, False
        try:
            return self.broker.counters(self.id), self.broker.errors(self.id), True
        except BrokerError:
            # Not hidden: the status says that it is not live, and the store still tells what is done.
            return {}, {}, False


def submit(
    sources: str | Iterable[str],
    *,
    out: str,
    settings: Settings | None = None,
    **options: Unpack[PlanOptions],
) -> JobHandle:
    """Write the job under the folder `out` and enqueue its shards in the Redis of the settings.

    The same request twice is the same job: only what is missing is enqueued again. Raises UsageError,
    WeightsError, JobError, StorageError, BrokerError.
    """
    settings = settings or load_settings()
    if settings.redis_url is None:
        raise SettingsError("DECONVOY_REDIS_URL is not set: name the Redis that workers listen to")
    broker = Broker(settings.redis_url, settings.shard_time_limit_s)
    plan = make_plan(options)
    broker.ping()
    names = [sources] if isinstance(sources, str) else list(sources)
    handle = prepare(names, out, plan, local=False)
    handle.broker = broker
    enqueue_missing(handle)
    return handle


def prepare(sources: list[str], out: str, plan: Plan, *, local: bool) -> JobHandle:
    """Write the job's manifest and `job.json`, or find them as they stand. Nothing is enqueued.

    `local`: one machine will do the work. Raises SourceError, JobError, StorageError.
    """
    images = list(find_images(sources))
    fingerprint = contract.fingerprint(plan.request, images)
    job_id = contract.job_id(plan.name or _name_from(sources), fingerprint)
    store = open_store(f"{out.rstrip('/') or '/'}/{job_id}")
    job = _standing_job(store)
    if job is None:
        shard_size = shard_size_for(plan, len(images), local=local)
        job = Job(
            id=job_id,
            place=store.place,
            created=datetime.now(UTC),
            request=plan.request,
            batch_size=plan.batch_size,
            shard_size=shard_size,
            n_images=len(images),
            n_shards=-(-len(images) // shard_size),
            fingerprint=fingerprint,
            versions={"deconvoy": version("deconvoy"), "python": platform.python_version()},
        )
        _write_manifest(store, images, job.shard_size)
        if not store.write(keys.JOB, job.to_json(), if_absent=True):
            # Somebody submitted the same at the same time, perhaps cut into other slices.
            job = Job.from_json(store.read(keys.JOB), store.place)
            _write_manifest(store, images, job.shard_size)
    if job.fingerprint != fingerprint or job.id != job_id:
        raise JobError(f"{store.place} holds another job than the one asked for: choose another --name")
    return JobHandle(job, store, None)


def enqueue_missing(handle: JobHandle) -> int:
    """Enqueue the shards whose record is missing; returns their number.

    Where only the index or the page is missing, one shard that is done is enqueued: it finishes the job.
    """
    if handle.broker is None:
        raise BrokerError(f"job {handle.id} has no Redis to be enqueued in")
    missing = handle.missing_shards()
    unfinished = not missing and not handle.store.exists(keys.REPORT)
    handle.broker.enqueue(handle.job, handle.place, [0] if unfinished else missing)
    return len(missing)


def open_job(job: str, settings: Settings | None = None) -> JobHandle:
    """A job by its place, which works without Redis, or by the id that Redis knows. Raises JobError."""
    settings = settings or load_settings()
    broker = None
    if settings.redis_url is not None:
        broker = Broker(settings.redis_url, settings.shard_time_limit_s)
    store = open_store(job)
    found = _standing_job(store)
    if found is None and broker is not None and "/" not in job:
        place = broker.place_of(job)
        if place is not None:
            store = open_store(place)
            found = _standing_job(store)
    if found is None:
        where = "" if broker else ", and DECONVOY_REDIS_URL, which knows the ids, is not set"
        raise JobError(f"there is no job {job!r}{where}: name the job's folder, OUT/<job id>")
    return JobHandle(found, store, broker)


@contextmanager
def closing(handle: JobHandle) -> Iterator[JobHandle]:
    """Close the handle's connections at the end."""
    try:
        yield handle
    finally:
        if handle.broker is not None:
            handle.broker.close()


def _is_stuck(missing: list[int], errors: dict[str, str]) -> bool:
    return bool(errors) and (queue.WHOLE_JOB in errors or {*map(str, missing)} <= errors.keys())


def _standing_job(store: Store) -> Job | None:
    try:
        return Job.from_json(store.read(keys.JOB), store.place)
    except ObjectNotFound:
        return None


def _write_manifest(store: Store, images: list[str], shard_size: int) -> None:
    for shard, start in enumerate(range(0, len(images), shard_size)):
        entries = [
            ManifestEntry(image=image, key=keys.image_key(image))
            for image in images[start : start + shard_size]
        ]
        store.write(keys.manifest_key(shard), contract.manifest_bytes(entries))


def _name_from(sources: list[str]) -> str:
    first = sources[0]
    return "stdin" if first == STDIN else Path(first).expanduser().absolute().stem
