"""What the page of a job says: plain values, read from the job, its index and its store. No HTML."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from worker.contract.errors import MessageError
from worker.contract.formats import PICTURE_FORMATS, Format
from worker.contract.jobs import Job
from worker.contract.records import Row, summary_of, weights_sha256
from worker.contract.specs import LayerSpec, parse_spec
from worker.contract.stages import slowest_stage
from worker.pipeline import Excerpt
from worker.report.pictures import Pictures
from worker.storage import Store

MAX_PHOTOGRAPHS = 100
MAX_PICTURE_BYTES = 150 * 2**20
"""No further photograph is shown once the page holds this much: a browser has to open it."""
MAX_UNITS = 25
"""Windows shown of one `top` or `unit` cell."""
MAX_FAILURES = 500

_SMALL = 0.12
"""A window narrower than this part of the photograph gets a ring, so that it is found."""
_RING = 0.08
_STAGES = {
    "read": "image bytes from their place",
    "decode": "to pixels, and preprocessing",
    "wait": "the network had no images to work on",
    "forward": "images through the network, up to what the specs keep",
    "project": "what is kept, back to pixels",
    "encode": "reconstructions to pictures",
    "write": "pictures to the store",
}


class Window(NamedTuple):
    """Pixels of the preprocessed image, half-open."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top


class Ring(NamedTuple):
    """A circle around a small window, in pixels of the preprocessed image."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Recon:
    """One reconstruction. `place` says in words where its picture stands; `src` is the picture as a
    data: URI, None where browsers show none of its format.
    """

    unit: int | None
    y: int | None
    x: int | None
    activation: float | None
    scale: float | None
    nonfinite: int
    window: Window
    ring: Ring | None
    place: str
    src: str | None


@dataclass(frozen=True)
class Cell:
    """What one spec made of one photograph. `row` counts the figure's selections from 0; `n_more`
    are reconstructions that the page leaves out.
    """

    spec: LayerSpec
    row: int
    recons: tuple[Recon, ...]
    n_more: int


@dataclass(frozen=True)
class Column:
    """One layer's cells for one photograph, from the upper row down."""

    name: str
    units: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Photograph:
    """One figure. `src` is the network's input as a data: URI, `width` x `height` pixels."""

    number: int
    key: str
    name: str
    image: str
    width: int
    height: int
    source_size: tuple[int, int] | None
    src: str
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Failure:
    """An image that has no figure, and why."""

    image: str
    status: str
    error: str
    message: str


@dataclass(frozen=True)
class Stage:
    """Seconds of one stage over all shards; `share` of the sum of all stages, 0 to 1."""

    name: str
    what: str
    seconds: float
    share: float


@dataclass(frozen=True)
class Page:
    """Everything that the template needs. `selections` are the figure's rows, from the top.

    `weights_sha256` is that of the weights that computed the rows; None where nobody recorded it.
    """

    job: Job
    weights_sha256: str | None
    selections: tuple[str, ...]
    n_ok: int
    n_failed: int
    photographs: tuple[Photograph, ...]
    failures: tuple[Failure, ...]
    stages: tuple[Stage, ...]

    @property
    def format(self) -> Format:
        """What the pictures hold, and whether browsers show them."""
        return PICTURE_FORMATS[self.job.request.format]

    @property
    def slowest(self) -> Stage | None:
        """The stage that most work went into; None where no time was measured."""
        name = slowest_stage({stage.name: stage.seconds for stage in self.stages})
        return next((stage for stage in self.stages if stage.name == name), None)

    @property
    def longest_s(self) -> float:
        """The most seconds of any stage, to wait included: what the bars are measured by."""
        return max((stage.seconds for stage in self.stages), default=0.0)


def page_of(store: Store, job: Job, excerpt: Excerpt) -> Page:
    """Read all that the page says. Raises a StorageError."""
    table = excerpt.table
    specs = job.request.parsed_specs()
    selections = tuple(dict.fromkeys(_selection_of(spec) for spec in sorted(specs, key=_selection_order)))
    bad = table.filter(pc.not_equal(table["status"], "ok"))
    good = table.filter(pc.and_(pc.equal(table["status"], "ok"), pc.is_valid(table["key"])))
    failures = bad.group_by(["image", "status", "error", "message"], use_threads=False).aggregate([])
    return Page(
        job=job,
        weights_sha256=weights_sha256(table.schema.metadata) or job.request.weights.sha256,
        selections=selections,
        n_ok=excerpt.n_images - excerpt.n_failed,
        n_failed=excerpt.n_failed,
        photographs=_photographs(store, job, good, selections),
        failures=tuple(
            Failure(row["image"], row["status"], row["error"] or "", row["message"] or "")
            for row in failures.slice(0, MAX_FAILURES).to_pylist()
        ),
        stages=_stages(summary_of(table.schema.metadata)["stages"]),
    )


def _photographs(
    store: Store, job: Job, table: pa.Table, selections: tuple[str, ...]
) -> tuple[Photograph, ...]:
    """The first photographs that have pictures, as many as the page may hold."""
    pictures = Pictures(store)
    photographs: list[Photograph] = []
    for key in pc.unique(table["image_key"])[:MAX_PHOTOGRAPHS].to_pylist():
        if pictures.n_bytes > MAX_PICTURE_BYTES:
            break
        rows = [Row(**record) for record in table.filter(pc.equal(table["image_key"], key)).to_pylist()]
        first = rows[0]
        if first.width is None or first.height is None or first.input_key is None:
            raise MessageError(
                f"the index gives no size or place for {first.image}; resume the job with this version"
            )
        whole = Window(0, 0, first.width, first.height)
        source = (
            (first.source_width, first.source_height) if first.source_width and first.source_height else None
        )
        photographs.append(
            Photograph(
                number=len(photographs) + 1,
                key=key,
                name=first.image.rstrip("/").rpartition("/")[2] or first.image,
                image=first.image,
                width=whole.width,
                height=whole.height,
                source_size=source,
                src=pictures.data_uri(first.input_key, first.input_offset, first.input_length, "image/jpeg"),
                columns=_columns(pictures, job, rows, selections, whole),
            )
        )
    return tuple(photographs)


def _columns(
    pictures: Pictures, job: Job, rows: list[Row], selections: tuple[str, ...], whole: Window
) -> tuple[Column, ...]:
    """One column a layer, in the network's order; the rows of a spec stay in their order."""
    rows_by_spec: dict[LayerSpec, list[Row]] = defaultdict(list)
    for row in rows:
        rows_by_spec[parse_spec(row.spec, job.request.model)].append(row)
    cells: dict[int, list[Cell]] = defaultdict(list)
    for spec in sorted(rows_by_spec, key=_selection_order):
        shown = rows_by_spec[spec][:MAX_UNITS]
        recons = tuple(_recon(pictures, job, row, whole) for row in shown)
        n_more = len(rows_by_spec[spec]) - len(shown)
        cells[spec.layer.index].append(Cell(spec, selections.index(_selection_of(spec)), recons, n_more))
    layers = {spec.layer.index: spec.layer for spec in rows_by_spec}
    return tuple(
        Column(layers[index].name, layers[index].channels, tuple(cells[index])) for index in sorted(layers)
    )


def _recon(pictures: Pictures, job: Job, row: Row, whole: Window) -> Recon:
    if row.left is None or row.top is None or row.right is None or row.bottom is None or row.key is None:
        raise MessageError(
            f"the index gives no window for {row.spec} of {row.image}; resume the job with this version"
        )
    window = Window(row.left, row.top, row.right, row.bottom)
    media_type = PICTURE_FORMATS[job.request.format].media_type
    ring = None
    side = max(whole.width, whole.height)
    if max(window.width, window.height) < _SMALL * side:
        ring = Ring((window.left + window.right) / 2, (window.top + window.bottom) / 2, _RING * side)
    return Recon(
        unit=row.unit,
        y=row.y,
        x=row.x,
        activation=row.activation,
        scale=row.scale,
        nonfinite=row.nonfinite or 0,
        window=window,
        ring=ring,
        place=_place_of(row.key, row.offset, row.length),
        src=pictures.data_uri(row.key, row.offset, row.length, media_type) if media_type else None,
    )


def _place_of(key: str, offset: int | None, length: int | None) -> str:
    return key if offset is None else f"{key}, {length} bytes from {offset}"


def _selection_of(spec: LayerSpec) -> str:
    """The figure's row that a spec belongs to; specs of several layers share one."""
    return f"top:{spec.k}" if spec.selection == "top" else spec.selection


def _selection_order(spec: LayerSpec) -> tuple[int, int]:
    """Sorts `all` above `max` above `top`, fewer units first, above `unit`."""
    return (("all", "max", "top", "unit").index(spec.selection), spec.k)


def _stages(seconds: dict[str, float]) -> tuple[Stage, ...]:
    """In the order in which an image passes them; stages that this page does not know come last."""
    total = sum(seconds.values())
    names = [name for name in _STAGES if name in seconds] + [name for name in seconds if name not in _STAGES]
    return tuple(
        Stage(name, _STAGES.get(name, ""), seconds[name], seconds[name] / total if total > 0 else 0.0)
        for name in names
    )
