"""A scan shard of an audit: what each image makes of each unit of the layers that are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from worker.audit.reading import read_table
from worker.contract import keys, records
from worker.contract.architectures import Layer
from worker.contract.audit_tables import profile_schema
from worker.contract.errors import JobError
from worker.contract.jobs import Job, ManifestEntry, read_manifest
from worker.pipeline.assignment import (
    NOTHING_WAITED,
    Assignment,
    ShardResult,
    record_metadata,
    weights_metadata,
)
from worker.pipeline.batches import BatchSizes
from worker.pipeline.caution import Caution
from worker.pipeline.compute import Computed, Fitting, network_input
from worker.pipeline.engine import AuditEngine
from worker.pipeline.intake import Intake
from worker.pipeline.loading import Failed, Limits, Loaded, Loader
from worker.pipeline.profiles import Profiles, Units
from worker.pipeline.reuse import Check, Checked, Scanned, Seen
from worker.pipeline.stages import Stages
from worker.pipeline.threads import Crew
from worker.storage import Store

COMPUTED_METADATA: Final = b"deconvoy.computed"
"""Key of a scan record's metadata: how many images were worked on, and not taken from a baseline."""


def run_scan(
    store: Store,
    job: Job,
    assignment: Assignment,
    engine: AuditEngine,
    limits: Limits,
    on_image: Callable[[int, int], None],
) -> ShardResult:
    """Work through a scan shard of the audit `job`: as `run_shard`, but an image leaves numbers, no pictures.

    An image that the job's baseline has with the same bytes takes its row from there: it is read, and
    neither decoded nor computed. Raises JobError for a shard that the job does not have, for an attempt at
    failed images, and for a baseline that says nothing about this job.
    """
    shard, record = assignment.shard, assignment.record
    if assignment.attempt or not 0 <= shard < job.n_shards:
        raise JobError(
            f"audit {job.id} is scanned in shards 0 to {job.n_shards - 1}, each of them once: not in shard "
            f"{shard}, attempt {assignment.attempt}"
        )
    manifest = keys.manifest_key(shard)
    entries = dict(enumerate(read_manifest(store.read(manifest), manifest)))
    if store.exists(record):
        statuses = read_table(store, record, profile_schema(job.layers), ["status"])["status"]
        n_failed = pc.sum(pc.not_equal(statuses, "ok")).as_py()
        return ShardResult(shard, len(entries), n_failed, committed=False)

    before = Scanned.before(job, weights_metadata(engine.weights))
    stages = Stages()
    profiles = Profiles(job.layers, len(entries))
    with Crew[Loaded | Failed | Checked]() as crew:
        loader = Loader.of(crew, job, limits, stages, hashed=True)
        sizes = BatchSizes(job, engine.device.type)
        check = Check(_may_be_seen(before, entries, assignment.caution), lambda n_same: on_image(n_same, 0))
        intake = Intake(crew, loader, sizes, check.on_checked)
        check.run(entries, loader, intake)
        todo = {position: entry for position, entry in entries.items() if position not in check.unchanged}
        network = Fitting(Profiler(engine, job.layers, stages), engine.device, sizes)
        n_failed = 0
        for outcome in _through_network(intake.batches(todo, assignment.caution), network):
            if isinstance(outcome, Failed):
                n_failed += 1
                profiles.add_failed(outcome)
            else:
                profiles.add(outcome.image, outcome.result)
            on_image(len(check.unchanged) + len(profiles), n_failed)
    tables = [profiles.table()]
    if before is not None:
        tables += before.rows(check.unchanged)
    seconds = stages.seconds()
    resources = {**intake.resources(), **NOTHING_WAITED}
    metadata = {
        **record_metadata(engine.weights, seconds, resources),
        COMPUTED_METADATA: str(len(profiles)).encode(),
    }
    committed = store.write(record, records.to_parquet(_in_order(tables), metadata), if_absent=True)
    return ShardResult(shard, len(entries), n_failed, committed, seconds, resources)


@dataclass(frozen=True)
class Profiler:
    """The step of a scan: each image's numbers, by layer."""

    engine: AuditEngine
    layers: Sequence[Layer]
    stages: Stages

    def __call__(self, images: Sequence[Loaded]) -> list[Units]:
        """What each image makes of each unit: peak_C and firing_C of each layer, image by image."""
        with self.stages.measure("forward"):
            found = self.engine.profile(network_input(self.engine, images), self.layers)
        arrays = {
            name: (profile.peak_NC.numpy(), profile.firing_NC.numpy().astype(np.int32))
            for name, profile in found.items()
        }
        return [
            {name: (peak_NC[n], firing_NC[n]) for name, (peak_NC, firing_NC) in arrays.items()}
            for n in range(len(images))
        ]


def _through_network(
    given: Iterable[Failed | list[Loaded]], network: Fitting[Units]
) -> Iterator[Failed | Computed[Units]]:
    for outcome in given:
        if isinstance(outcome, Failed):
            yield outcome
        else:
            yield from network.compute(outcome)


def _may_be_seen(
    before: Scanned | None, entries: Mapping[int, ManifestEntry], caution: Caution | None
) -> dict[int, Seen]:
    """What the baseline has of the images; none that may have cost a worker its life."""
    if before is None:
        return {}
    left_alone = frozenset() if caution is None else caution.suspects | caution.quarantined
    return before.seen({place: entry for place, entry in entries.items() if place not in left_alone})


def _in_order(tables: Sequence[tuple[list[int], pa.Table]]) -> pa.Table:
    """All rows, in the order of their positions."""
    positions = [position for places, _ in tables for position in places]
    rows = pa.concat_tables([table.replace_schema_metadata(None) for _, table in tables])
    return rows.take(sorted(range(len(positions)), key=positions.__getitem__)).combine_chunks()
