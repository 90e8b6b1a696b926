"""A shard from its manifest to its record.

`reader threads → decoder threads → batches → the network, in the calling thread → encoder threads →
writer threads → record`
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from worker.contract import keys, records
from worker.contract.errors import ImageQuarantined, JobError
from worker.contract.jobs import Job, ManifestEntry, read_manifest
from worker.contract.records import Row
from worker.contract.specs import LayerSpec
from worker.pipeline.batches import Batcher, BatchSizes
from worker.pipeline.caution import Caution
from worker.pipeline.compute import Projector
from worker.pipeline.engine import Engine
from worker.pipeline.index import failed_images
from worker.pipeline.layouts import open_layout
from worker.pipeline.loading import Failed, Limits, Loaded, Loader
from worker.pipeline.stages import Stages, peak_rss_bytes
from worker.pipeline.threads import Crew
from worker.pipeline.writing import Backlog, Encoder, Written, failed_rows
from worker.storage import Store

N_READERS = 16
"""A read from a store at the other end of a network is mostly waiting."""
_QUARANTINED = ImageQuarantined(
    "several processes died while they worked on this image, and it was left alone; look at the file, "
    "and try it again with resume --failed"
)
_WORKING_THREADS = max(2, min(8, os.cpu_count() or 1))


@dataclass(frozen=True)
class Assignment:
    """All images of a shard; or, in a later `attempt`, those that failed in all before.

    With `caution` they are worked on one at a time.
    """

    shard: int
    attempt: int = 0
    caution: Caution | None = None

    @property
    def record(self) -> str:
        """Where the record of the work will stand."""
        if self.attempt:
            return keys.retry_shard_key(self.attempt, self.shard)
        return keys.shard_key(self.shard)


@dataclass(frozen=True)
class ShardResult:
    """What became of a shard. `committed` is False if its record stood already.

    `stages` (seconds) and `resources` are what the work has taken; empty where the record stood before.
    """

    shard: int
    n_images: int
    n_failed: int
    committed: bool
    stages: dict[str, float] = field(default_factory=dict, compare=False)
    resources: dict[str, int] = field(default_factory=dict, compare=False)


def run_shard(
    store: Store,
    job: Job,
    assignment: Assignment,
    engine: Engine,
    limits: Limits,
    on_image: Callable[[int, int], None],
) -> ShardResult:
    """Work through what is assigned of `job`; its record is written last, and by one worker only.

    `on_image(n_done, n_failed)` is called from this thread after each image. An image that cannot be
    used is failed rows. Everything else (StorageError, DeviceError, a time limit, Ctrl-C) ends the
    shard: it is raised here when all threads have ended, and no record is written.
    Raises JobError for a shard that the job does not have, MessageError for a bad manifest.
    """
    shard, record = assignment.shard, assignment.record
    if not 0 <= shard < job.n_shards:
        raise JobError(f"job {job.id} has shards 0 to {job.n_shards - 1}, not {shard}")
    specs = job.request.parsed_specs()
    manifest = keys.manifest_key(shard)
    entries = read_manifest(store.read(manifest), manifest)
    if assignment.attempt:
        failed = failed_images(store, shard, assignment.attempt)
        entries = [entry for entry in entries if entry.key in failed]
    if store.exists(record):
        return ShardResult(shard, len(entries), _n_failed(store, record, specs), committed=False)

    stages = Stages()
    with open_layout(job.request.layout, store, shard) as layout:
        with Crew[Loaded | Failed | Written]() as threads:
            loader = Loader(
                threads.pool("read", N_READERS),
                threads.pool("decode", _WORKING_THREADS),
                job.request.preprocessing,
                limits,
                stages,
            )
            backlog = Backlog(
                threads.pool("encode", _WORKING_THREADS),
                threads.pool("write", layout.n_threads),
                Encoder(shard, job.request.format, engine.normalisation.pixel_std_C, stages),
                layout,
            )
            projector = Projector(engine, specs, BatchSizes(job, engine.device.type), stages)
            work = _Work(threads, loader, projector, backlog, shard, on_image)
            rows = work.rows(entries, assignment.caution)
        with stages.measure("write"):
            rows = layout.finish(rows)
    seconds, resources = stages.seconds(), work.resources()
    metadata = {
        **records.work_metadata(seconds, resources),
        records.WEIGHTS_METADATA: f"{engine.weights.name} {engine.weights.sha256}".encode(),
    }
    data = records.to_parquet(records.table_of(rows), metadata)
    committed = store.write(record, data, if_absent=True)
    return ShardResult(shard, len(entries), work.n_failed, committed, seconds, resources)


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
        self._most_ahead = 0
        self.n_failed = 0

    def rows(self, entries: Sequence[ManifestEntry], caution: Caution | None) -> list[Row]:
        """Work through `entries`; the rows in their order, then by spec, then by unit."""
        if caution is None:
            self._together(entries)
        else:
            self._one_by_one(entries, caution)
        self._wait_until_written()
        return [row for position in range(len(entries)) for row in self._rows[position]]

    def _together(self, entries: Sequence[ManifestEntry]) -> None:
        batcher: Batcher[Loaded] = Batcher(self._projector.sizes)
        for outcome in self._loaded(entries):
            if isinstance(outcome, Failed):
                self._fail(outcome)
                continue
            for batch in batcher.add(outcome):
                self._compute(batch)
        for batch in batcher.rest():
            self._compute(batch)

    def _one_by_one(self, entries: Sequence[ManifestEntry], caution: Caution) -> None:
        """No image is touched before the one in hand is done with, whatever it does to this process."""
        for position in sorted(caution.quarantined):
            self._fail(Failed(position, entries[position], _QUARANTINED, None))
        for position in caution.order(len(entries)):
            caution.on_start(position)
            self._loader.submit(position, entries[position])
            outcome = self._wait_for(position)
            if isinstance(outcome, Failed):
                self._fail(outcome)
            else:
                self._compute([outcome])
                self._wait_until_written()
        caution.on_start(None)

    def resources(self) -> dict[str, int]:
        """The most that was in use up to now: see `records.RESOURCES_METADATA`."""
        return {
            "peak_rss_bytes": peak_rss_bytes(),
            "most_loaded_ahead": self._most_ahead,
            "most_waiting_to_write": self._backlog.most_images,
            "most_bytes_waiting_to_write": self._backlog.most_bytes,
        }

    def _loaded(self, entries: Sequence[ManifestEntry]) -> Iterator[Loaded | Failed]:
        """All images in order; those behind the one that is given are loaded meanwhile."""
        n_submitted = 0
        for position in range(len(entries)):
            while n_submitted < min(position + 1 + self._projector.sizes.n_ahead, len(entries)):
                self._loader.submit(n_submitted, entries[n_submitted])
                n_submitted += 1
            self._take_what_is_done()
            yield self._wait_for(position)

    def _wait_for(self, position: int) -> Loaded | Failed:
        with self._projector.stages.measure("wait"):
            while position not in self._ahead:
                self._take(self._threads.result())
        return self._ahead.pop(position)

    def _wait_until_written(self) -> None:
        while len(self._backlog):
            self._take(self._threads.result())

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
            self._most_ahead = max(self._most_ahead, len(self._ahead))

    def _finish(self, position: int, rows: list[Row]) -> None:
        self._rows[position] = rows
        self._on_image(len(self._rows), self.n_failed)


def _n_failed(store: Store, record: str, specs: Sequence[LayerSpec]) -> int:
    """Failed images of a record that stands: each has one row for each spec."""
    statuses: list[str] = records.from_parquet(store.read(record), record)["status"].to_pylist()
    return sum(status != "ok" for status in statuses) // len(specs)
