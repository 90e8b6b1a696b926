"""How far a job is. The store says what is done; Redis adds what is under way, and why something stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from producer.broker import Broker, Live
from worker.contract import keys, queue
from worker.contract.errors import BrokerError, MessageError
from worker.contract.jobs import Job
from worker.storage import Store
from worker.storage.standing import is_cancelled, still_to_do

if TYPE_CHECKING:
    from worker.contract.records import JobSummary


@dataclass(frozen=True)
class JobStatus:
    """How far a job is, now.

    `attempt` counts how often what failed was tried again. `errors` names what has failed for good,
    `notes` what is waited for. `live` says whether Redis was asked: without it, what is under way is not
    known. `stages` are seconds by stage, summed over workers and threads, of the shards that are done;
    `resources` the most that any of them had in use (docs/index-columns.md).
    """

    id: str
    place: str
    state: str
    attempt: int
    n_images: int
    n_done: int
    n_failed: int
    n_shards: int
    n_shards_done: int
    live: bool
    errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    slowest_stage: str | None = None
    stages: Mapping[str, float] = field(default_factory=dict)
    resources: Mapping[str, int] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """All is done, index and page too."""
        return self.state == "finished"

    @property
    def stopped(self) -> bool:
        """Nothing more will happen by itself: it is cancelled, or what is missing has failed for good."""
        return self.state in ("stopped", "cancelled")


def read_status(job: Job, store: Store, broker: Broker | None) -> JobStatus:
    """The status of `job`; without Redis, by whole shards. Raises StorageError, MessageError.

    Images are done when they are scanned, if the job is an audit; its shards are those of both passes.
    """
    todo = still_to_do(store, job)
    n_shards = job.n_shards + job.n_atlas_shards
    finished = not todo.shards and store.exists(keys.REPORT)
    if finished:
        summary = _summary(store)
        return JobStatus(
            id=job.id,
            place=store.place,
            state="finished",
            attempt=todo.attempt,
            n_images=job.n_images,
            n_done=job.n_images,
            n_failed=summary["n_failed"],
            n_shards=n_shards,
            n_shards_done=n_shards,
            live=False,
            slowest_stage=summary["slowest_stage"],
            stages=summary["stages"],
            resources=summary["resources"],
        )
    live = _live(broker, job.id)
    counters = live.counters if live else {}
    # A retry works on few images of a shard: how many is not known here. An atlas's were counted before.
    missing = [shard for shard in todo.shards if shard < job.n_shards] if todo.attempt == 0 else []
    n_done = job.n_images - sum(_n_images_in(job, shard) for shard in missing)
    return JobStatus(
        id=job.id,
        place=store.place,
        state=_unfinished_state(job, store, todo.shards, live),
        attempt=todo.attempt,
        n_images=job.n_images,
        n_done=n_done + sum(counters.get(shard, (0, 0))[0] for shard in missing),
        n_failed=sum(failed for shard, (_, failed) in counters.items() if shard < job.n_shards),
        n_shards=n_shards,
        n_shards_done=n_shards - len(todo.shards) - todo.n_later,
        live=live is not None,
        errors=tuple(dict.fromkeys(live.errors.values())) if live else (),
        notes=tuple(dict.fromkeys(live.notes.values())) if live else (),
        slowest_stage=live.slowest_stage if live else None,
        stages=live.stages if live else {},
        resources=live.resources if live else {},
    )


def _unfinished_state(job: Job, store: Store, missing: list[int], live: Live | None) -> str:
    if is_cancelled(store):
        return "cancelled"
    n_shards = job.n_shards + job.n_atlas_shards
    # Anybody may put a message into the queue: an error of a shard that the job has not is not the job's.
    failed = (
        {field for field in live.errors if field == queue.WHOLE_JOB or int(field) < n_shards}
        if live
        else set()
    )
    # An audit's scan that cannot be merged has failed in shards that are done: the atlas is not asked for.
    unmerged = min(missing, default=-1) >= job.n_shards and not store.exists(keys.STATISTICS)
    everything = queue.WHOLE_JOB in failed or {*map(str, missing)} <= failed or unmerged
    return "stopped" if failed and everything else "unfinished"


def _live(broker: Broker | None, job_id: str) -> Live | None:
    try:
        return broker.live(job_id) if broker is not None else None
    except BrokerError:
        # Not hidden: the status says that it is not live, and the store still tells what is done.
        return None


def _summary(store: Store) -> JobSummary:
    try:
        summary: JobSummary = json.loads(store.read(keys.SUMMARY))
    except ValueError as error:
        raise MessageError(f"{keys.SUMMARY} in {store.place} is no JSON: {error}; resume the job") from error
    return summary


def _n_images_in(job: Job, shard: int) -> int:
    return min(job.shard_size, job.n_images - shard * job.shard_size)
