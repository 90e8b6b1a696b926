"""An atlas shard of an audit: the winners of some units of one layer, projected and drawn.

What is drawn of a unit has one scale, so all its winners must be at hand. They are kept as cells, at the size
they are drawn in, and so few units are worked on at a time that their cells stay within a bound. An image
that wins in several such groups is loaded and goes up once for each: little beside the three ways down that
every winner takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from worker.audit.reading import read_table
from worker.contract import keys, records
from worker.contract.architectures import Layer
from worker.contract.audit_tables import ATLAS_SCHEMA
from worker.contract.audits import Winners, atlas_chunks, read_plan
from worker.contract.errors import ImageNotFound, JobError
from worker.contract.jobs import Job, ManifestEntry
from worker.pipeline.assignment import NOTHING_WAITED, Assignment, ShardResult, record_metadata
from worker.pipeline.batches import BatchSizes
from worker.pipeline.compute import Computed, Fitting
from worker.pipeline.engine import AuditEngine
from worker.pipeline.intake import Intake
from worker.pipeline.loading import Failed, Limits, Loaded, Loader
from worker.pipeline.sprites import Cells, Field, draw_sheets
from worker.pipeline.stages import Stages
from worker.pipeline.threads import N_WORKING, Crew, Pool
from worker.pipeline.winners import N_SIGNALS, Projected, Wanted, WinnerProjector
from worker.storage import Store

MAX_CELL_BYTES = 128 * 2**20
"""Cells of the units that are worked on at a time hold no more memory than this, beside those of one unit."""


def run_atlas(
    store: Store,
    job: Job,
    assignment: Assignment,
    engine: AuditEngine,
    limits: Limits,
    on_image: Callable[[int, int], None],
) -> ShardResult:
    """Work through an atlas shard of the audit `job`: as `run_shard`, by the plan that the merge has left.

    A row a winner. An image that cannot be used any more, or is not the one that was scanned, is failed rows
    and empty cells. Raises JobError for a shard that the atlas does not have, and for a later attempt.
    """
    shard, record = assignment.shard, assignment.record
    chunk = shard - job.n_shards
    if job.audit is None or assignment.attempt or not 0 <= chunk < job.n_atlas_shards:
        raise JobError(
            f"job {job.id} has {job.n_atlas_shards} atlas shards from {job.n_shards} on, each of them once: "
            f"not shard {shard}, attempt {assignment.attempt}"
        )
    plan_key = keys.plan_key(chunk)
    plan = read_plan(store.read(plan_key), plan_key)
    if store.exists(record):
        rows = read_table(store, record, ATLAS_SCHEMA, ["image_key", "status"])
        failed_keys = rows.filter(pc.field("status") != "ok")["image_key"]
        return ShardResult(shard, len(plan), pc.count_distinct(failed_keys).as_py(), committed=False)

    layer, _ = atlas_chunks(job.layers)[chunk]
    field = Field.of(layer, job.request.model)
    stages = Stages()
    with Crew[Loaded | Failed | Drawn]() as crew:
        sizes = BatchSizes(job, engine.device.type)
        drawer = Drawer(store, layer, field, job.audit.top, engine.normalisation.pixel_std_C, stages)
        atlas = _Atlas(plan, drawer, crew.pool("draw", N_WORKING), on_image)
        intake = Intake(crew, Loader.of(crew, job, limits, stages), sizes, atlas.on_drawn)
        for wanted in _groups(plan, job.audit.top, field):
            step = WinnerProjector(engine, layer, field, wanted, stages)
            given = intake.batches(atlas.entries(wanted), assignment.caution)
            atlas.project(wanted, given, Fitting(step, engine.device, sizes))
            atlas.draw(intake)
    seconds = stages.seconds()
    resources = {**intake.resources(), **NOTHING_WAITED}
    table = pa.Table.from_pylist(atlas.rows(), schema=ATLAS_SCHEMA)
    data = records.to_parquet(table, record_metadata(engine.weights, seconds, resources))
    committed = store.write(record, data, if_absent=True)
    return ShardResult(shard, len(plan), len(atlas.failed), committed, seconds, resources)


def _groups(plan: Sequence[Winners], top: int, field: Field) -> Iterator[Wanted]:
    """The plan, cut so that the cells of the units of each part stay within `MAX_CELL_BYTES`."""
    by_unit: dict[int, list[tuple[int, tuple[int, int, float]]]] = defaultdict(list)
    for position, line in enumerate(plan):
        for winner in line.winners:
            by_unit[winner[0]].append((position, winner))
    cell_bytes = (4 * N_SIGNALS + 1) * 3 * field.cell_side**2
    n_units = max(1, MAX_CELL_BYTES // (top * cell_bytes))
    units = sorted(by_unit)
    for first in range(0, len(units), n_units):
        wanted: dict[int, list[tuple[int, int, float]]] = defaultdict(list)
        for unit in units[first : first + n_units]:
            for position, winner in by_unit[unit]:
                wanted[position].append(winner)
        yield dict(sorted(wanted.items()))


@dataclass(frozen=True)
class Drawn:
    """A unit whose pictures are stored; `scale`: that of its reconstructions."""

    unit: int
    scale: float


@dataclass(frozen=True)
class Drawer:
    """Draws and stores the pictures of a layer's units: rows of `top` cells."""

    store: Store
    layer: Layer
    field: Field
    top: int
    pixel_std_C: tuple[float, float, float]
    stages: Stages

    def draw(self, unit: int, cells: dict[int, Cells]) -> Drawn:
        """Draw a unit; `cells` are by rank, those of a missing one stay empty."""
        empty = Cells.empty(self.field.cell_side)
        with self.stages.measure("encode"):
            sheets = draw_sheets([cells.get(rank, empty) for rank in range(self.top)], self.pixel_std_C)
        with self.stages.measure("write"):
            for what, data in sheets.data.items():
                self.store.write(keys.atlas_key(self.layer.name, unit, what), data)
        return Drawn(unit, sheets.scale)


class _Atlas:
    """The calling thread's part: collects the winners' rows and cells, and has units drawn."""

    def __init__(
        self,
        plan: Sequence[Winners],
        drawer: Drawer,
        drawers: Pool[Any],
        on_image: Callable[[int, int], None],
    ) -> None:
        self._plan = plan
        self._drawer = drawer
        self._drawers = drawers
        self._on_image = on_image
        self._rows: list[dict[str, Any]] = []
        self._cells: dict[int, dict[int, Cells]] = {}
        self._scales: dict[int, float] = {}
        self._n_drawing = 0
        self._done: set[int] = set()
        self.failed: set[int] = set()

    def entries(self, wanted: Wanted) -> dict[int, ManifestEntry]:
        """The images that are to be loaded."""
        return {
            position: ManifestEntry(image=self._plan[position].image, key=self._plan[position].key)
            for position in wanted
        }

    def project(
        self, wanted: Wanted, given: Iterable[Failed | list[Loaded]], network: Fitting[list[Projected]]
    ) -> None:
        """Have all images of `wanted` projected; their cells are kept until they are drawn."""
        self._cells = {unit: {} for of_image in wanted.values() for unit, _, _ in of_image}
        for outcome in given:
            if isinstance(outcome, Failed):
                self._fail(outcome, wanted)
                continue
            same = [image for image in outcome if image.source_sha256 == self._plan[image.position].sha256]
            kept = {image.position for image in same}
            for image in outcome:
                if image.position not in kept:
                    self._fail(_not_the_same(image), wanted)
            for computed in network.compute(same) if same else ():
                if isinstance(computed, Failed):
                    self._fail(computed, wanted)
                else:
                    self._add(computed, wanted)

    def draw(self, intake: Intake[Drawn]) -> None:
        """Have the units drawn whose cells are at hand, and wait until they are stored."""
        self._n_drawing = len(self._cells)
        while self._cells:
            unit, cells = self._cells.popitem()
            self._drawers.submit(partial(self._drawer.draw, unit, cells))
        while self._n_drawing:
            intake.take()

    def on_drawn(self, drawn: Drawn) -> None:
        """A unit is done with."""
        self._n_drawing -= 1
        self._scales[drawn.unit] = drawn.scale

    def rows(self) -> list[dict[str, Any]]:
        """All rows, by unit, then by rank."""
        rows = [{**row, "scale": self._scales[row["unit"]]} for row in self._rows]
        return sorted(rows, key=lambda row: (row["unit"], row["rank"]))

    def _add(self, computed: Computed[list[Projected]], wanted: Wanted) -> None:
        position = computed.image.position
        facts = [projected.facts for projected in computed.result]
        for (unit, rank, _), projected in zip(wanted[position], computed.result, strict=True):
            self._cells[unit][rank] = projected.cells
        self._finish(position, wanted, facts)

    def _fail(self, failed: Failed, wanted: Wanted) -> None:
        self.failed.add(failed.position)
        facts = {
            "status": failed.status,
            "error": type(failed.error).__name__,
            "message": str(failed.error),
        }
        self._finish(failed.position, wanted, [facts] * len(wanted[failed.position]))

    def _finish(self, position: int, wanted: Wanted, facts: Sequence[dict[str, Any]]) -> None:
        line = self._plan[position]
        for (unit, rank, activation), of_winner in zip(wanted[position], facts, strict=True):
            head = {"layer": self._drawer.layer.name, "unit": unit, "rank": rank, "activation": activation}
            self._rows.append({**head, "image": line.image, "image_key": line.key, **of_winner})
        self._done.add(position)
        self._on_image(len(self._done), len(self.failed))


def _not_the_same(image: Loaded) -> Failed:
    error = ImageNotFound(
        f"{image.entry.image} has changed since it was scanned, and what was scanned is gone; audit again"
    )
    return Failed(image.position, image.entry, error, image.source_sha256)
