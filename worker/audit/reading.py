"""The records of an audit's two passes, as tables and as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from worker.contract import keys, records
from worker.contract.architectures import Layer
from worker.contract.audit_tables import ATLAS_SCHEMA, profile_schema
from worker.contract.errors import JobError
from worker.contract.jobs import Job
from worker.storage import Store


@dataclass(frozen=True)
class Profiles:
    """What a layer's units did in some images: `places_N` is how many places a unit's map has."""

    peaks_NC: npt.NDArray[np.float32]
    firing_NC: npt.NDArray[np.int32]
    places_N: npt.NDArray[np.int64]


def read_table(store: Store, key: str, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """All columns, or those named, of a table that must have `schema`. Raises MessageError, StorageError."""
    return records.from_parquet(store.read(key), f"{key} in {store.place}", schema, columns)


def scan_records(store: Store, job: Job, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The scan's records one by one, in the order of shards. Raises JobError if one is missing."""
    schema = profile_schema(job.layers)
    return _records(store, job, range(job.n_shards), schema, columns)


def atlas_records(store: Store, job: Job) -> Iterator[pa.Table]:
    """Likewise the atlas's."""
    shards = range(job.n_shards, job.n_shards + job.n_atlas_shards)
    return _records(store, job, shards, ATLAS_SCHEMA, None)


def _records(
    store: Store, job: Job, shards: range, schema: pa.Schema, columns: Sequence[str] | None
) -> Iterator[pa.Table]:
    standing = set(store.list(keys.SHARDS))
    missing = [shard for shard in shards if keys.shard_key(shard) not in standing]
    if missing:
        raise JobError(
            f"job {job.id}: {len(missing)} of {len(shards)} shards are not done, the first is {missing[0]}; "
            "submit the job again to have them done"
        )
    for shard in shards:
        yield read_table(store, keys.shard_key(shard), schema, columns)


def countable(record: pa.Table) -> pa.Table:
    """The images of a scan's record that statistics are of: they are `ok` and all their peaks finite."""
    return record.filter(pc.and_(pc.equal(record["status"], "ok"), pc.equal(record["nonfinite"], 0)))


def profiles_of(images: pa.Table, layer: Layer) -> Profiles:
    """The profiles of images that all have one."""
    height_N, width_N = (images[side].to_numpy().astype(np.int64) for side in ("height", "width"))
    return Profiles(
        peaks_NC=peaks_of(images, layer),
        firing_NC=_array(images[f"firing_{layer.name}"], layer),
        # Each pool halves, rounding down.
        places_N=(height_N // layer.stride) * (width_N // layer.stride),
    )


def peaks_of(images: pa.Table, layer: Layer) -> npt.NDArray[np.float32]:
    """The peaks of the layer's units in images that all have them: peaks_NC."""
    return _array(images[f"peak_{layer.name}"], layer)


def _array(column: pa.ChunkedArray, layer: Layer) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = column.combine_chunks().flatten().to_numpy()
    return values.reshape(-1, layer.channels)
