"""Audits in a test, run in this process: shard by shard, or whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.unit.shards import LIMITS, SMALL
from tests.unit.standin import StandInEngine, make_job
from worker.audit import finish_audit, merge_scan
from worker.audit.reading import read_table
from worker.contract import keys
from worker.contract.audit_tables import ATLAS_SCHEMA, profile_schema
from worker.contract.audits import AuditOptions
from worker.contract.jobs import Job, Preprocessing, Request
from worker.pipeline import Assignment, AuditEngine, Caution, ShardResult, run_atlas, run_scan
from worker.storage import Store, open_store


def make_audit(
    place: Path,
    images: Sequence[Path | str],
    options: AuditOptions = AuditOptions(),  # noqa: B008 (frozen)
    *,
    layers: Sequence[str] = ("pool1",),
    preprocessing: Preprocessing = SMALL,
    shard_size: int = 1000,
    batch_size: int | None = None,
) -> tuple[Store, Job]:
    """An audit with its manifest, as a producer leaves it."""
    store = open_store(place)
    request = Request(specs=tuple(f"{layer}:max" for layer in layers), preprocessing=preprocessing)
    job = make_job(store, images, request, shard_size=shard_size, batch_size=batch_size, audit=options)
    store.write(keys.JOB, job.to_json())
    return store, job


def run(
    store: Store,
    job: Job,
    shard: int,
    engine: AuditEngine | None = None,
    *,
    caution: Caution | None = None,
    on_image: Callable[[int, int], None] = lambda *_: None,
) -> ShardResult:
    """Work through a shard of either pass. However it ends, no thread of it may be left."""
    work = run_scan if shard < job.n_shards else run_atlas
    try:
        return work(store, job, Assignment(shard, 0, caution), engine or StandInEngine(), LIMITS, on_image)
    finally:
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith("deconvoy")] == []


def run_whole(store: Store, job: Job, engine: AuditEngine | None = None) -> None:
    """Both passes, and what follows each."""
    for shard in range(job.n_shards):
        run(store, job, shard, engine)
    conclude(store, job, engine)


def conclude(store: Store, job: Job, engine: AuditEngine | None = None) -> None:
    """What follows the scan: statistics, atlas, and what is made of them."""
    merge_scan(store, job)
    for shard in range(job.n_shards, job.n_shards + job.n_atlas_shards):
        run(store, job, shard, engine)
    finish_audit(store, job)


def profiles_of(store: Store, job: Job, shard: int = 0) -> pa.Table:
    return read_table(store, keys.shard_key(shard), profile_schema(job.layers))


def winners_of(store: Store, job: Job, chunk: int = 0) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(
        store, keys.shard_key(job.n_shards + chunk), ATLAS_SCHEMA
    ).to_pylist()
    return rows
