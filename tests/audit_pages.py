"""Pictures for a synthetic audit, and a browser: what the tests of an audit's page need."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image, ImageDraw

from tests.audit_records import make_audit
from worker.audit.reading import read_table
from worker.contract import keys
from worker.contract.audit_tables import ATLAS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, UNITS_SCHEMA
from worker.contract.jobs import Job
from worker.contract.records import to_parquet
from worker.storage import Store, open_store

CELL_PX = {"pool1": 6, "pool2": 16, "pool3": 44, "pool4": 100, "pool5": 28}
SCHEMAS = {
    keys.UNITS: UNITS_SCHEMA,
    keys.IMAGES: IMAGES_SCHEMA,
    keys.ATLAS: ATLAS_SCHEMA,
    keys.FINDINGS: FINDINGS_SCHEMA,
}
Draw = Callable[[str, int, int, str], Image.Image]


def drawn_audit(folder: Path, *, draw: Draw | None = None, **options: Any) -> tuple[Store, Job]:
    """A finished audit with its pictures, and no page yet. `options` are those of `make_audit`; `draw`
    gives a winner's picture (layer, unit, rank, and which of the four); coloured ones unless told.
    """
    store = open_store(folder)
    job = make_audit(store, **options)
    draw_sprites(store, job, draw or coloured)
    return store, job


def rows_of(store: Store, key: str) -> list[dict[str, Any]]:
    """The rows of one of the four tables."""
    rows: list[dict[str, Any]] = read_table(store, key, SCHEMAS[key]).to_pylist()
    return rows


def put_rows(store: Store, key: str, rows: Sequence[dict[str, Any]]) -> None:
    """Put rows in the place of the table's."""
    store.write(key, to_parquet(pa.Table.from_pylist(list(rows), schema=SCHEMAS[key])))


def coloured(layer: str, unit: int, rank: int, what: str) -> Image.Image:
    """A picture of one colour, which tells which it is, with a dot."""
    side = CELL_PX[layer]
    cell = Image.new("RGB", (side, side), colour_of(unit, rank, what))
    ImageDraw.Draw(cell).ellipse((0, 0, side // 4, side // 4), fill=(230, 230, 230))
    return cell


def colour_of(unit: int, rank: int, what: str) -> tuple[int, int, int]:
    """Red tells the unit, green the rank, blue which of the four pictures."""
    return (
        (unit * 7) % 256,
        20 + rank * 25,
        {"reconstructions": 0, "patches": 80, "other": 160}.get(what, 240),
    )


def draw_sprites(store: Store, job: Job, draw: Draw) -> None:
    """Put the sprites of all winners into the store, as the atlas's shards do."""
    assert job.audit is not None
    ranks: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row in rows_of(store, keys.ATLAS):
        ranks[row["layer"], row["unit"]].append(row["rank"])
    for (layer, unit), of_unit in ranks.items():
        for what, rows in (
            ("reconstructions", ("reconstructions",)),
            ("patches", ("patches",)),
            ("controls", ("other", "untrained")),
        ):
            side = CELL_PX[layer]
            sheet = Image.new("RGB", (side * job.audit.top, side * len(rows)), (128, 128, 128))
            for y, row_of in enumerate(rows):
                for rank in of_unit:
                    sheet.paste(draw(layer, unit, rank, row_of), (rank * side, y * side))
            buffer = io.BytesIO()
            sheet.save(buffer, "WEBP", lossless=what != "patches", quality=80, method=0)
            store.write(keys.atlas_key(layer, unit, what), buffer.getvalue())
