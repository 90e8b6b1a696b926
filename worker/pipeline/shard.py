"""A shard from its manifest to its record.

`reader threads → decoder threads → batches → the network, in the calling thread → encoder threads →
writer threads → record`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from worker.contract import keys, records
from worker.contract.errors import JobError
from worker.contract.jobs import Job, ManifestEntry, read_manifest
from worker.contract.records import Row
from worker.contract.specs import LayerSpec
from worker.pipeline.assignment import Assignment, ShardResult, record_metadata
from worker.pipeline.batches import BatchSizes
from worker.pipeline.caution import Caution
from worker.pipeline.compute import Fitting, Projector
from worker.pipeline.engine import Engine, Reconstruction
from worker.pipeline.index import failed_images
from worker.pipeline.intake import Intake
from worker.pipeline.layouts import open_layout
from worker.pipeline.loading import Failed, Limits, Loaded, Loader
from worker.pipeline.stages import Stages
from worker.pipeline.threads import N_WORKING, Crew
from worker.pipeline.writing import Backlog, Encoder, Written, failed_rows
from worker.storage import Store


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
        with Crew[Loaded | Failed | Written]() as crew:
            backlog = Backlog(
                crew.pool("encode", N_WORKING),
                crew.pool("write", layout.n_threads),
                Encoder(shard, job.request.format, engine.normalisation.pixel_std_C, stages),
                layout,
            )
            sizes = BatchSizes(job, engine.device.type)
            network = Fitting(Projector(engine, specs, stages), engine.device, sizes)
            work = _Work(specs, network, backlog, shard, on_image)
            intake = Intake(crew, Loader.of(crew, job, limits, stages), sizes, work.on_written)
            rows = work.rows(entries, intake, assignment.caution)
        with stages.measure("write"):
            rows = layout.finish(rows)
    seconds, resources = stages.seconds(), {**intake.resources(), **backlog.resources()}
    data = records.to_parquet(records.table_of(rows), record_metadata(engine.weights, seconds, resources))
    committed = store.write(record, data, if_absent=True)
    return ShardResult(shard, len(entries), work.n_failed, committed, seconds, resources)


class _Work:
    """The calling thread's part: has images computed and stored, and collects rows."""

    def __init__(
        self,
        specs: Sequence[LayerSpec],
        network: Fitting[list[Reconstruction]],
        backlog: Backlog,
        shard: int,
        on_image: Callable[[int, int], None],
    ) -> None:
        self._specs = specs
        self._network = network
        self._backlog = backlog
        self._shard = shard
        self._on_image = on_image
        self._rows: dict[int, list[Row]] = {}
        self.n_failed = 0

    def rows(
        self, entries: Sequence[ManifestEntry], intake: Intake[Written], caution: Caution | None
    ) -> list[Row]:
        """Work through `entries`; the rows in their order, then by spec, then by unit."""
        for given in intake.batches(dict(enumerate(entries)), caution):
            if isinstance(given, Failed):
                self._fail(given)
                continue
            self._compute(given, intake)
            if caution is not None:
                self._wait_until_written(intake)
        self._wait_until_written(intake)
        return [row for position in range(len(entries)) for row in self._rows[position]]

    def on_written(self, written: Written) -> None:
        """An image is done with."""
        self._backlog.remove(written)
        self._finish(written.position, written.rows)

    def _wait_until_written(self, intake: Intake[Written]) -> None:
        while len(self._backlog):
            intake.take()

    def _compute(self, batch: Sequence[Loaded], intake: Intake[Written]) -> None:
        for computed in self._network.compute(batch):
            if isinstance(computed, Failed):
                self._fail(computed)
                continue
            intake.take_what_is_done()
            while not self._backlog.has_room_for(computed):
                intake.take()
            self._backlog.put(computed)

    def _fail(self, failed: Failed) -> None:
        self.n_failed += 1
        self._finish(failed.position, failed_rows(failed, self._specs, self._shard))

    def _finish(self, position: int, rows: list[Row]) -> None:
        self._rows[position] = rows
        self._on_image(len(self._rows), self.n_failed)


def _n_failed(store: Store, record: str, specs: Sequence[LayerSpec]) -> int:
    """Failed images of a record that stands: each has one row for each spec."""
    statuses: list[str] = records.from_parquet(store.read(record), record)["status"].to_pylist()
    return sum(status != "ok" for status in statuses) // len(specs)
