"""An audit against an earlier one: what each unit does differently, and which images are others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from worker.audit import histogram
from worker.audit.reading import read_table
from worker.contract import keys, records
from worker.contract.audit_tables import IMAGES_SCHEMA, UNITS_SCHEMA
from worker.contract.errors import JobError, ObjectNotFound
from worker.contract.jobs import Job
from worker.storage import Store, open_store


@dataclass(frozen=True)
class Baseline:
    """A finished audit: its store, its job, and what it says of units."""

    store: Store
    job: Job
    units: pa.Table


@dataclass(frozen=True)
class Comparison:
    """Unit by unit, in the order of `units.parquet`, and image by image, as submitted.

    `units` are the baseline's. `n_others` counts the winners that were none in the baseline, of the `n_top`
    that are compared. `ks_C` and `psi_C` are None where no image of one of the two audits could be used.
    `replaced` is the share of images that others have taken the place of, at most 1.
    """

    units: pa.Table
    ks_C: npt.NDArray[np.float64] | None
    psi_C: npt.NDArray[np.float64] | None
    n_others: list[int]
    n_top: list[int]
    added: list[str]
    removed: list[str]
    changed: list[str]
    replaced: float

    @property
    def turnover(self) -> list[float]:
        """Of each unit, the share of its top images that are others; 0 if it never had any."""
        return [others / max(top, 1) for others, top in zip(self.n_others, self.n_top, strict=True)]


def open_baseline(job: Job, weights: bytes) -> Baseline | None:
    """The audit that `job`, whose weights are `weights` (their name and sha256), is compared with, if any.

    Raises JobError where no finished audit stands, or one that cannot be compared: another network,
    preprocessing, precision, other weights or layers. StorageError and MessageError as of any job.
    """
    if job.audit is None or job.audit.baseline is None:
        return None
    store = open_store(job.audit.baseline)
    try:
        base = Job.from_json(store.read(keys.JOB), store.place)
    except ObjectNotFound as error:
        raise JobError(f"baseline {store.place} holds no job: name the place of a finished audit") from error
    if base.audit is None or not store.exists(keys.SUMMARY):
        what = "is no audit" if base.audit is None else "is not finished"
        raise JobError(f"baseline {store.place} {what}: name the place of a finished audit")
    units = read_table(store, keys.UNITS, UNITS_SCHEMA)
    sha256_now = records.weights_sha256({records.WEIGHTS_METADATA: weights})
    sha256_then = records.weights_sha256(units.schema.metadata)
    for what, now, then in (*_terms(job, base), ("weights", sha256_now, sha256_then)):
        if now != then:
            raise JobError(
                f"baseline {store.place} has other {what} than job {job.id} ({then}, not {now}): "
                "compare audits of one and the same network"
            )
    return Baseline(store, base, units)


def compare(baseline: Baseline, units: pa.Table, images: pa.Table) -> Comparison:
    """Set an audit's units and images against the baseline's. Raises MessageError, StorageError."""
    then = read_table(baseline.store, keys.IMAGES, IMAGES_SCHEMA, ["image", "image_key", "source_sha256"])
    ks_C = psi_C = None
    if units["n_images"][0].as_py() and baseline.units["n_images"][0].as_py():
        base_CB, now_CB = _histograms(baseline.units), _histograms(units)
        ks_C = histogram.kolmogorov_smirnov(base_CB, now_CB)
        psi_C = histogram.stability_index(base_CB, now_CB)
    n_others, n_top = _others(*(table["top_image_keys"].to_pylist() for table in (baseline.units, units)))
    is_old = pc.is_in(images["image_key"], value_set=then["image_key"].combine_chunks())
    is_kept = pc.is_in(then["image_key"], value_set=images["image_key"].combine_chunks())
    added = images.filter(pc.invert(is_old))["image"].to_pylist()
    removed = then.filter(pc.invert(is_kept))["image"].to_pylist()
    changed = _changed(images, then)
    come, gone = (len(added) + len(changed)) / len(images), (len(removed) + len(changed)) / len(then)
    return Comparison(
        units=baseline.units,
        ks_C=ks_C,
        psi_C=psi_C,
        n_others=n_others,
        n_top=n_top,
        added=added,
        removed=removed,
        changed=changed,
        replaced=min(come + gone, 1.0),
    )


def _terms(job: Job, base: Job) -> list[tuple[str, Any, Any]]:
    """What two audits must have in common, as words for a person."""
    return [
        ("network", job.request.model, base.request.model),
        ("preprocessing", job.request.preprocessing, base.request.preprocessing),
        ("precision", job.request.precision, base.request.precision),
        ("layers", ", ".join(_names(job)), ", ".join(_names(base))),
    ]


def _names(job: Job) -> list[str]:
    return [layer.name for layer in job.layers]


def _histograms(units: pa.Table) -> histogram.Counts:
    """The rows' histograms, side by side."""
    edges = units["histogram_edges"].combine_chunks()
    counts_CB = np.zeros((len(units), histogram.N_BINS), np.int64)
    bins = histogram.bins_of(pc.list_flatten(edges).to_numpy())
    counts_CB[pc.list_parent_indices(edges).to_numpy(), bins] = pc.list_flatten(
        units["histogram_counts"].combine_chunks()
    ).to_numpy()
    return counts_CB


def _others(then: Sequence[list[str]], now: Sequence[list[str]]) -> tuple[list[int], list[int]]:
    """Of each unit, how many of its top images are others, and of how many."""
    # The two audits may keep different numbers of winners: as many as both have room for are compared.
    room = min(max(map(len, then), default=0), max(map(len, now), default=0))
    pairs = [(set(before[:room]), set(after[:room])) for before, after in zip(then, now, strict=True)]
    n_top = [max(len(before), len(after)) for before, after in pairs]
    return [n - len(before & after) for n, (before, after) in zip(n_top, pairs, strict=True)], n_top


def _changed(images: pa.Table, then: pa.Table) -> list[str]:
    """The images of the same name and other bytes."""
    place = pc.index_in(images["image_key"], value_set=then["image_key"].combine_chunks())
    before = then["source_sha256"].combine_chunks().take(place.combine_chunks())
    differs = pc.not_equal(images["source_sha256"].combine_chunks(), before)
    changed: list[str] = images["image"].combine_chunks().filter(differs).to_pylist()
    return changed
