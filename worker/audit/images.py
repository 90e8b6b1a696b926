"""The images of an audit, a row each: faults, outlier scores and duplicates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from worker.audit import duplicates
from worker.audit.outliers import Usual, score_limit, scores
from worker.audit.reading import countable, peaks_of, scan_records
from worker.contract.audit_tables import IMAGES_SCHEMA
from worker.contract.jobs import Job
from worker.contract.work import Work
from worker.storage import Store

_FROM_RECORD = (
    "image",
    "image_key",
    "status",
    "error",
    "message",
    "source_sha256",
    "source_width",
    "source_height",
    "difference_hash",
)


@dataclass(frozen=True)
class Images:
    """`table` is `images.parquet`. `nonfinite_N` counts the peaks that are no finite number, in the order of
    its rows; `score_limit` is the outlier score above which an image is a finding.
    """

    table: pa.Table
    nonfinite_N: npt.NDArray[np.int64]
    score_limit: float


def gather_images(store: Store, job: Job, units: pa.Table, work: Work) -> Images:
    """Read all scan records again, now that `units` says what is usual; `work` counts them in.

    Profiles are in memory of one record at a time, and, a byte a unit, of the images whose difference hash is
    close to another's. Raises JobError if a record is missing.
    """
    usual = Usual(units, job.layers[-1])
    parts = []
    nonfinite = []
    peaks = f"peak_{job.layers[-1].name}"
    for shard, record in enumerate(scan_records(store, job, [*_FROM_RECORD, "nonfinite", peaks])):
        work.add(record.schema.metadata)
        nonfinite.append(record["nonfinite"].fill_null(0).to_numpy())
        part = record.select(_FROM_RECORD).replace_schema_metadata(None)
        part = part.append_column("shard", pa.array([shard] * len(record), pa.int32()))
        parts.append(_with_scores(part, countable(record), usual, job))
    table = pa.concat_tables(parts)
    table = table.append_column("n_top", _times_in_top(table["image_key"], units))
    exact, near = _groups(store, job, table, usual)
    table = table.append_column("exact_group", exact).append_column("near_group", near)
    known = table["outlier_score"].drop_null().to_numpy()
    return Images(
        table=table.select(IMAGES_SCHEMA.names).cast(IMAGES_SCHEMA),
        nonfinite_N=np.concatenate(nonfinite),
        score_limit=score_limit(known),
    )


def _with_scores(part: pa.Table, images: pa.Table, usual: Usual, job: Job) -> pa.Table:
    """Add what is known only of `images`, those of `part` that statistics are of."""
    standardised_NV = usual.standardised(peaks_of(images, job.layers[-1]))
    place = pc.index_in(part["image_key"], value_set=images["image_key"].combine_chunks())
    strongest = pa.array(usual.strongest_units(standardised_NV), pa.list_(pa.string()))
    part = part.append_column("outlier_score", pa.array(scores(standardised_NV)).take(place))
    return part.append_column("strongest_units", strongest.take(place))


def _times_in_top(image_keys: pa.ChunkedArray, units: pa.Table) -> pa.Array:
    """Of how many units each image is one of the top images."""
    counted = pc.value_counts(pc.list_flatten(units["top_image_keys"].combine_chunks()))
    place = pc.index_in(image_keys, value_set=counted.field("values"))
    return counted.field("counts").cast(pa.int32()).take(place).fill_null(0)


def _groups(store: Store, job: Job, table: pa.Table, usual: Usual) -> tuple[pa.Array, pa.Array]:
    """The columns `exact_group` and `near_group`."""
    order = pc.sort_indices(table["image_key"])
    in_order = table.select(["image_key", "source_sha256", "difference_hash", "outlier_score"]).take(order)
    keys = in_order["image_key"].combine_chunks()
    first_of_copies = _first_copies(in_order["source_sha256"])
    # Of copies of one file, the first stands for all: they are alike, and would only hide each other.
    own = first_of_copies == np.arange(len(keys))
    comparable = np.flatnonzero(own & in_order["outlier_score"].is_valid().to_numpy(zero_copy_only=False))
    hashes = in_order["difference_hash"].take(comparable).to_numpy()
    first, second = (comparable[numbers] for numbers in duplicates.candidate_pairs(hashes))
    if len(first):
        among = np.unique(np.concatenate([first, second]))
        steps_NV = _steps(store, job, keys.take(among), usual)
        alike = duplicates.similar(steps_NV, np.searchsorted(among, first), np.searchsorted(among, second))
        first, second = first[alike], second[alike]
    nearest = duplicates.groups_of(len(keys), first, second)[first_of_copies]
    is_near = np.isin(nearest, nearest[own & (nearest != np.arange(len(keys)))])
    has_copy = np.bincount(first_of_copies, minlength=len(keys))[first_of_copies] > 1
    # Back into the order of the table.
    back = np.argsort(order.to_numpy(), kind="stable")
    exact_group, near_group = (
        pc.if_else(pa.array(some), keys.take(pa.array(names)), None)
        for some, names in ((has_copy, first_of_copies), (is_near, nearest))
    )
    return exact_group.take(back), near_group.take(back)


def _first_copies(sha256: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """The place of the first image of the same bytes; an image that was never read is its own."""
    places = np.arange(len(sha256))
    known = np.flatnonzero(sha256.is_valid().to_numpy())
    codes = sha256.drop_null().combine_chunks().dictionary_encode().indices.to_numpy()
    _, first, code = np.unique(codes, return_index=True, return_inverse=True)
    places[known] = known[first[code]]
    return places


def _steps(store: Store, job: Job, image_keys: pa.Array, usual: Usual) -> npt.NDArray[np.int8]:
    """The profiles of these images, of which there are some, in their order."""
    rows: dict[str, npt.NDArray[np.int8]] = {}
    peaks = f"peak_{job.layers[-1].name}"
    for record in scan_records(store, job, ["image_key", peaks]):
        images = record.filter(pc.is_in(record["image_key"], value_set=image_keys))
        steps_NV = duplicates.steps_of(usual.standardised(peaks_of(images, job.layers[-1])))
        rows |= zip(images["image_key"].to_pylist(), steps_NV, strict=True)
    return np.stack([rows[key] for key in image_keys.to_pylist()])
