"""A shard from its manifest to its record.

`reader threads → decoder threads → batches → the network, in the calling thread → writer threads → record`
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from worker.contract import keys, records
from worker.contract.errors import JobError
from worker.contract.jobs import Job, ManifestEntry, read_manifest
from worker.contract.records import Row
from worker.contract.specs import LayerSpec
from worker.pipeline.batches import Batcher, BatchSizes
from worker.pipeline.compute import Projector
from worker.pipeline.engine import Engine
from worker.pipeline.loading import Failed, Limits, Loaded, Loader
from worker.pipeline.stages import Stages
from worker.pipeline.writing import Backlog, Writer, Written, failed_rows
from worker.storage import Store

_READERS = 4
_WORKING_THREADS = max(2, min(8, os.cpu_count() or 1))


@dataclass(frozen=True)
class ShardResult:
    """What became of a shard. `committed` is False if its record stood already."""

    shard: int
    n_images: int
    n_failed: int
    committed: bool


def run_shard(
    store: Store,
    job: Job,
    shard: int,
    engine: Engine,
    limits: Limits,
    on_image: Callable[[int, int], None],
) -> ShardResult:
    """Work through one shard of `job`; its record is written last, and by one worker only.

    `on_image(n_done, n_failed)` is called from this thread after each image. An image that cannot be
    used is failed rows. Everything else (StorageError, DeviceError, a time limit, Ctrl-C) ends the
    shard: it is raised here when all threads have ended, and no record is written.
    Raises JobError for a shard or a layout that cannot be worked on, MessageError for a bad manifest.
    """
    if job.request.layout != "files":
        raise JobError(
            f"job {job.id}: layout {job.request.layout} is not supported by this version; use files"
        )
    if not 0 <= shard < job.n_shards:
        raise JobError(f"job {job.id} has shards 0 to {job.n_shards - 1}, not {shard}")
    specs = job.request.parsed_specs()
    manifest = keys.manifest_key(shard)
    entries = read_manifest(store.read(manifest), manifest)
    record = keys.shard_key(shard)
    if store.exists(record):
        return ShardResult(shard, len(entries), _n_failed(store, record, specs), committed=False)

    stages = Stages()
    with _thread_pools() as pools:
        sizes = BatchSizes(job, engine.device.type)
        writer = Writer(store, shard, job.request.format, engine.normalisation.pixel_std_C, stages)
        projector = Projector(engine, specs, sizes, stages)
        work = _Work(shard, projector, Backlog(pools.writers, writer), on_image)
        loader = Loader(pools.readers, pools.decoders, job.request.preprocessing, limits, stages)
        rows = work.rows(loader, entries)
    metadata = {
        records.STAGES_METADATA: stages.to_json(),
        records.WEIGHTS_METADATA: f"{engine.weights.name} {engine.weights.sha256}".encode(),
    }
    data = records.to_parquet(records.table_of(rows), metadata)
    committed = store.write(record, data, if_absent=True)
    return ShardResult(shard, len(entries), work.n_failed, committed)


@dataclass(frozen=True)
class _Pools:
    readers: ThreadPoolExecutor
    decoders: ThreadPoolExecutor
    writers: ThreadPoolExecutor


@contextmanager
def _thread_pools() -> Iterator[_Pools]:
    """The shard's threads. At the end, however it comes, what waits is dropped and all have ended."""
    pools = _Pools(
        ThreadPoolExecutor(_READERS, "deconvoy-read"),
        ThreadPoolExecutor(_WORKING_THREADS, "deconvoy-decode"),
        ThreadPoolExecutor(_WORKING_THREADS, "deconvoy-write"),
    )
    all_pools = (pools.readers, pools.decoders, pools.writers)
    try:
        for pool, n_threads in zip(all_pools, (_READERS, _WORKING_THREADS, _WORKING_THREADS), strict=True):
            _start(pool, n_threads)
        yield pools
    finally:
        # First drop everything everywhere: a decoder waits for its reader.
        for pool in all_pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in all_pools:
            pool.shutdown(wait=True)


def _start(pool: ThreadPoolExecutor, n_threads: int) -> None:
    """Start all threads of `pool` while there is no work yet.

    A pool forgets a thread, and so never joins it, if a signal's exception strikes while it starts:
    later, in the middle of work, that would leave a thread behind that still writes.
    """
    go = threading.Event()
    try:
        for _ in range(n_threads):
            pool.submit(go.wait)
    finally:
        go.set()


class _Work:
    """The calling thread's part: takes images in order, batches, computes, and collects rows."""

    def __init__(
        self, shard: int, projector: Projector, backlog: Backlog, on_image: Callable[[int, int], None]
    ) -> None:
        self._shard = shard
        self._projector = projector
        self._backlog = backlog
        self._on_image = on_image
        self._rows: dict[int, list[Row]] = {}
        self.n_failed = 0

    def rows(self, loader: Loader, entries: Sequence[ManifestEntry]) -> Iterable[Row]:
        """Work through `entries`; the rows in their order, then by spec, then by unit."""
        batcher: Batcher[Loaded] = Batcher(self._projector.sizes)
        for loading in loader.load(entries, self._projector.sizes.n_ahead):
            with self._projector.stages.measure("wait"):
                while not loading.done():
                    self._collect(self._backlog.wait(loading))
            outcome = loading.result()
            if isinstance(outcome, Failed):
                self.n_failed += 1
                rows = failed_rows(outcome, self._projector.specs, self._shard)
                self._collect([Written(outcome.position, rows)])
                continue
            for batch in batcher.add(outcome):
                self._compute(batch)
        for batch in batcher.rest():
            self._compute(batch)
        while self._backlog.futures:
            self._collect(self._backlog.wait())
        return [row for position in sorted(self._rows) for row in self._rows[position]]

    def _compute(self, batch: Sequence[Loaded]) -> None:
        for computed in self._projector.project(batch):
            self._collect(self._backlog.put(computed))

    def _collect(self, written: Iterable[Written]) -> None:
        for image in written:
            self._rows[image.position] = image.rows
            self._on_image(len(self._rows), self.n_failed)


def _n_failed(store: Store, record: str, specs: Sequence[LayerSpec]) -> int:
    """Failed images of a record that stands: each has one row for each spec."""
    statuses: list[str] = records.from_parquet(store.read(record), record)["status"].to_pylist()
    return sum(status != "ok" for status in statuses) // len(specs)
