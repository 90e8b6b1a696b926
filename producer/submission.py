"""The writing of a job: from its sources to the manifest and `job.json` in its place. Nothing is enqueued."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from producer.planning import Plan, shard_size_for
from producer.sources import STDIN, find_images
from producer.spool import Spool, open_spool
from worker.contract import jobs as contract
from worker.contract import keys
from worker.contract.errors import JobError, ObjectNotFound, SourceError
from worker.contract.jobs import Job
from worker.contract.paths import expanded
from worker.storage import Store, open_store


def write_job(
    sources: list[str], out: str, plan: Plan, *, local: bool, allowed_roots: Sequence[str]
) -> tuple[Job, Store]:
    """Write the job's manifest and `job.json` under `out`, or find them as they stand; also gives its store.

    The images are never held as a list: they go through a temporary file. `local`: one machine will do
    the work. A job whose id the plan names is found by that alone: its sources are not looked at again.
    Raises SourceError, UsageError, JobError, StorageError.
    """
    place = open_store(out).place.rstrip("/")
    if plan.id is not None:
        store = open_store(f"{place}/{plan.id}")
        job = standing_job(store)
        if job is not None:
            return job, store
    with open_spool() as spool:
        images = spool.passing(find_images(sources, allowed_roots))
        fingerprint = contract.fingerprint(plan.request, images, plan.audit)
        if not spool.n_images:
            raise SourceError("no source is named: name a file, a folder, s3://bucket/prefix or a manifest")
        job_id = plan.id or contract.job_id(plan.name or name_from(sources), fingerprint)
        store = open_store(f"{place}/{job_id}")
        job = standing_job(store)
        if job is None:
            job = _write_job(store, spool, plan, job_id, fingerprint, local=local)
    if job.fingerprint != fingerprint or job.id != job_id:
        raise JobError(f"{store.place} holds another job than the one asked for: choose another --name")
    return job, store


def standing_job(store: Store) -> Job | None:
    """The job whose place the store is; None where there is none. Raises MessageError."""
    try:
        return Job.from_json(store.read(keys.JOB), store.place)
    except ObjectNotFound:
        return None


def _write_job(store: Store, spool: Spool, plan: Plan, job_id: str, fingerprint: str, *, local: bool) -> Job:
    """Write the manifest, then `job.json`; returns the job that stands there in the end."""
    shard_size = shard_size_for(plan, spool.n_images, local=local)
    job = Job(
        id=job_id,
        place=store.place,
        created=datetime.now(UTC),
        request=plan.request,
        audit=plan.audit,
        batch_size=plan.batch_size,
        priority=plan.priority,
        shard_size=shard_size,
        n_images=spool.n_images,
        n_shards=-(-spool.n_images // shard_size),
        fingerprint=fingerprint,
        versions={"deconvoy": version("deconvoy"), "python": platform.python_version()},
    )
    spool.write_slices(store, job.shard_size)
    if not store.write(keys.JOB, job.to_json(), if_absent=True):
        # Somebody submitted the same at the same time, perhaps cut into other slices.
        job = Job.from_json(store.read(keys.JOB), store.place)
        spool.write_slices(store, job.shard_size)
    return job


def name_from(sources: Sequence[str]) -> str:
    """What a job is called that was given no name: as its first source."""
    first = sources[0]
    return "stdin" if first == STDIN else expanded(first).absolute().stem
