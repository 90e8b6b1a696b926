"""Rows of the index: one for each image and layer spec (and unit), whatever became of it.

The columns are a promise to readers (DuckDB, pandas, polars); docs/index-columns.md explains each, and a
test holds the two together.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from worker.contract import keys
from worker.contract.errors import MessageError, one_line
from worker.contract.stages import slowest_stage

UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What pyarrow raises for bytes that are no Parquet file, or a broken one: a column's name may be no text."""

Status = Literal["ok", "failed", "quarantined"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row. Places are in the feature map, `left top right bottom` in the preprocessed image
    (half-open), `source_box` is (left, top, right, bottom) in the original image, in pixels.

    `activation` is the seed's value, `scale` the absolute value (in 0-255 pixel units) that is drawn
    as full black or white; `nonfinite` counts NaN and infinities in the reconstruction; `seconds` is
    the time that its own stages took together. `offset` and `length` are the picture's bytes within
    the object `key`, None where it is the whole object; so are `input_offset` and `input_length` of the
    preprocessed image, within `input_key`. `width` and `height` are pixels of the preprocessed image,
    `source_width` and `source_height` of the original. What a failed row cannot know is None.
    """

    image: str
    image_key: str
    status: Status
    error: str | None = None
    message: str | None = None
    spec: str
    layer: str
    selection: str
    unit: int | None = None
    y: int | None = None
    x: int | None = None
    activation: float | None = None
    left: int | None = None
    top: int | None = None
    right: int | None = None
    bottom: int | None = None
    source_box: tuple[float, float, float, float] | None = None
    key: str | None = None
    offset: int | None = None
    length: int | None = None
    sha256: str | None = None
    scale: float | None = None
    nonfinite: int | None = None
    width: int | None = None
    height: int | None = None
    source_width: int | None = None
    source_height: int | None = None
    source_sha256: str | None = None
    shard: int
    seconds: float | None = None
    input_key: str | None = None
    input_offset: int | None = None
    input_length: int | None = None


SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("image_key", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("message", pa.string()),
        pa.field("spec", pa.string(), nullable=False),
        pa.field("layer", pa.string(), nullable=False),
        pa.field("selection", pa.string(), nullable=False),
        pa.field("unit", pa.int32()),
        pa.field("y", pa.int32()),
        pa.field("x", pa.int32()),
        pa.field("activation", pa.float32()),
        pa.field("left", pa.int32()),
        pa.field("top", pa.int32()),
        pa.field("right", pa.int32()),
        pa.field("bottom", pa.int32()),
        pa.field("source_box", pa.list_(pa.float64())),
        pa.field("key", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
        pa.field("sha256", pa.string()),
        pa.field("scale", pa.float32()),
        pa.field("nonfinite", pa.int64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("source_width", pa.int32()),
        pa.field("source_height", pa.int32()),
        pa.field("source_sha256", pa.string()),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("seconds", pa.float64()),
        pa.field("input_key", pa.string()),
        pa.field("input_offset", pa.int64()),
        pa.field("input_length", pa.int64()),
    ]
)

STAGES_METADATA = b"deconvoy.stages"
"""Key of the Parquet file's metadata that holds seconds by stage, as JSON: a shard's, or all shards'."""

RESOURCES_METADATA = b"deconvoy.resources"
"""Likewise: the most that the shard, or any shard, had in use at one time. `peak_rss_bytes`: memory of the
worker's process, since it started; `most_loaded_ahead`: images decoded before the network came to them;
`most_waiting_to_write`: images computed and not stored yet; `most_bytes_waiting_to_write`: their
reconstructions, as float32."""

WEIGHTS_METADATA = b"deconvoy.weights"
"""Likewise: name and sha256 of the weights that computed the rows, with a space between."""


class Summary(TypedDict):
    """What the metadata of a record or an index says of the work."""

    stages: dict[str, float]
    slowest_stage: str | None
    resources: dict[str, int]


class JobSummary(Summary):
    """`summary.json`: the work of all records, and how many images there are and are not `ok`."""

    n_images: int
    n_failed: int


class Failure(TypedDict):
    """A line of `failures.jsonl`: an image that is not `ok`, and why."""

    image: str
    status: Status
    error: str
    message: str
    shard: int


def weights_sha256(metadata: Mapping[bytes, bytes] | None) -> str | None:
    """The hex sha256 of the weights that the `schema.metadata` of a file names; None where it names none."""
    return (metadata or {}).get(WEIGHTS_METADATA, b"").decode().rpartition(" ")[2] or None


def work_metadata(stages: Mapping[str, float], resources: Mapping[str, int]) -> dict[bytes, bytes]:
    """The metadata that `summary_of` reads."""
    return {
        STAGES_METADATA: json.dumps(stages).encode(),
        RESOURCES_METADATA: json.dumps(resources).encode(),
    }


def summary_of(metadata: Mapping[bytes, bytes] | None) -> Summary:
    """Read the `schema.metadata` of a record or an index. Raises MessageError where it says nothing."""
    stages = {name: float(seconds) for name, seconds in _numbers(metadata, STAGES_METADATA).items()}
    resources = {name: int(most) for name, most in _numbers(metadata, RESOURCES_METADATA).items()}
    return Summary(stages=stages, slowest_stage=slowest_stage(stages), resources=resources)


def _numbers(metadata: Mapping[bytes, bytes] | None, key: bytes) -> dict[str, float]:
    """Names and finite numbers that the metadata holds, as JSON, under `key`. Raises MessageError."""
    reason = "is no object of numbers"
    try:
        numbers = json.loads((metadata or {})[key])
        if isinstance(numbers, dict) and all(map(math.isfinite, numbers.values())):
            return numbers
    except KeyError:
        reason = "is missing"
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        reason = f"cannot be read ({type(error).__name__})"
    raise MessageError(f"the file has no {key.decode()}: that {reason}; use the version that wrote it")


def summary_json(summary: JobSummary) -> bytes:
    """The bytes of `summary.json`."""
    return json.dumps(summary, indent=2).encode() + b"\n"


def failure_lines(failed: pa.Table) -> bytes:
    """The lines of `failures.jsonl` of these rows: one for each image, from its first row."""
    rows = failed.select([*Failure.__annotations__]).to_pylist()
    by_image = {row["image"]: row for row in reversed(rows)}
    return "".join(json.dumps(row) + "\n" for row in reversed(by_image.values())).encode()


def table_of(rows: Iterable[Row]) -> pa.Table:
    """Rows as a table of `SCHEMA`, in the order given."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)


def to_parquet(table: pa.Table, metadata: dict[bytes, bytes] | None = None) -> bytes:
    """The table as Parquet bytes (zstd). `metadata` is added to the file's own."""
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd")
    return buffer.getvalue()


def from_parquet(
    data: bytes, where: str, schema: pa.Schema = SCHEMA, columns: Sequence[str] | None = None
) -> pa.Table:
    """All columns, or those named, of a table of `schema` that stands at `where`; by default an index's.

    Raises MessageError if it is none.
    """
    with open_parquet(data, where, schema) as file:
        # Not pq.read_table: its reader threads may abort a process that ends soon after.
        return file.read(columns=columns)


@contextmanager
def open_parquet(data: bytes, where: str, schema: pa.Schema = SCHEMA) -> Iterator[pq.ParquetFile]:
    """The file whose bytes stand at `where`, to be read in the block. Raises MessageError, also from there.

    Its columns must be those of `schema`.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        if not file.schema_arrow.equals(schema, check_metadata=False):
            raise MessageError(
                f"{where} has other columns than this version's; use the version that wrote it"
            )
        yield file
    except UNREADABLE as error:
        raise MessageError(
            f"{where} is no readable Parquet file: {one_line(error)}; delete it and {keys.REPORT}, then "
            "resume the job"
        ) from error
