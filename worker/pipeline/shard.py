"""A shard from its manifest to its record.

`reader threads → decoder threads → batches → the network, in the calling thread → writer threads → record`
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
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
from worker.pipeline.threads import Crew
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
    with Crew[Loaded | Failed | Written]() as threads:
        loader = Loader(
            threads.pool("read", _READERS),
            threads.pool("decode", _WORKING_THREADS),
            job.request.preprocessing,
            limits,
            stages,
        )
        writer = Writer(store, shard, job.request.format, engine.normalisation.pixel_std_C, stages)
        backlog = Backlog(threads.pool("write", _WORKING_THREADS), writer)
        projector = Projector(engine, specs, BatchSizes(job, engine.device.type), stages)
        work = _Work(threads, loader, projector, backlog, shard, on_image)
        rows = work.rows(entries)
    metadata = {
        records.STAGES_METADATA: stages.to_json(),
        records.WEIGHTS_METADATA: f"{engine.weights.name} {engine.weights.sha256}".encode(),
    }
    data = records.to_parquet(records.table_of(rows), metadata)
    committed = store.write(record, data, if_absent=True)
    return ShardResult(shard, len(entries), work.n_failed, committed)


class _Work:
    """The calling thread's part: takes images in order, batches, computes, and collects rows."""

    def __init__(
        self,
        threads: Crew[Loaded | Failed | Written],
        loader: Loader,
        projector: Projector,
        backlog: Backlog,
        shard: int,
        on_image: Callable[[int, int], None],
    ) -> None:
        self._shard = shard
        self._threads = threads
        self._loader = loader
        self._projector = projector
        self._backlog = backlog
        self._on_image = on_image
        self._ahead: dict[int, Loaded | Failed] = {}
        self._rows: dict[int, list[Row]] = {}
        self.n_failed = 0

    def rows(self, entries: Sequence[ManifestEntry]) -> list[Row]:
        """Work through `entries`; the rows in their order, then by spec, then by unit."""
        batcher: Batcher[Loaded] = Batcher(self._projector.sizes)
        for outcome in self._loaded(entries):
            if isinstance(outcome, Failed):
                self._fail(outcome)
                continue
            for batch in batcher.add(outcome):
                self._compute(batch)
        for batch in batcher.rest():
            self._compute(batch)
        while len(self._backlog):
            self._take(self._threads.result())
        return [row for position in range(len(entries)) for row in self._rows[position]]

    def _loaded(self, entries: Sequence[ManifestEntry]) -> Iterator[Loaded | Failed]:
        """All images in order; those behind the one that is given are loaded meanwhile."""
        n_submitted = 0
        for position in range(len(entries)):
            while n_submitted < min(position + 1 + self._projector.sizes.n_ahead, len(entries)):
                self._loader.submit(n_submitted, entries[n_submitted])
                n_submitted += 1
            self._take_what_is_done()
            with self._projector.stages.measure("wait"):
                while position not in self._ahead:
                    self._take(self._threads.result())
            yield self._ahead.pop(position)

    def _compute(self, batch: Sequence[Loaded]) -> None:
        for computed in self._projector.project(batch):
            if isinstance(computed, Failed):
                self._fail(computed)
                continue
            self._take_what_is_done()
            while not self._backlog.has_room_for(computed):
                self._take(self._threads.result())
            self._backlog.put(computed)

    def _fail(self, failed: Failed) -> None:
        self.n_failed += 1
        self._finish(failed.position, failed_rows(failed, self._projector.specs, self._shard))

    def _take_what_is_done(self) -> None:
        for result in self._threads.results_so_far():
            self._take(result)

    def _take(self, result: Loaded | Failed | Written) -> None:
        if isinstance(result, Written):
            self._backlog.remove(result)
            self._finish(result.position, result.rows)
        else:
            self._ahead[result.position] = result

    def _finish(self, position: int, rows: list[Row]) -> None:
        self._rows[position] = rows
        self._on_image(len(self._rows), self.n_failed)


def _n_failed(store: Store, record: str, specs: Sequence[LayerSpec]) -> int:
    """Failed images of a record that stands: each has one row for each spec."""
    statuses: list[str] = records.from_parquet(store.read(record), record)["status"].to_pylist()
    return sum(status != "ok" for status in statuses) // len(specs)
