"""A synthetic audit in a store: its job, the records of its scan and those of its atlas. No network runs.

Every unit has a distribution of its own that never changes, and images differ by `seed`: two audits of
different seeds are two samples of the same. A test alters the `Scan` to plant what is to be found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from worker.contract import keys, records
from worker.contract.architectures import Layer, layers_by_name
from worker.contract.audit_tables import ATLAS_SCHEMA, profile_schema
from worker.contract.audits import AuditOptions, atlas_chunks, read_plan
from worker.contract.jobs import Job, ManifestEntry, Request, fingerprint, manifest_bytes
from worker.storage import Store

SIDE_PX = 64
WEIGHTS = "synthetic " + "5" * 64
HOSTILE_NAMES = (
    "<script>alert(1)</script>.jpg",
    '"><img src=x onerror=alert(1)>.jpg',
    "photos/& quot' ünïcödé 猫 \u202e.jpg",
    "s3://bucket/{{ 7 * 7 }}/%00%0a.jpg",
    "photos/" + "very-long-" * 20 + ".jpg",
    "javascript:alert(1)//.png",
)


@dataclass
class Scan:
    """What a scan saw: an entry, or a row, an image, in manifest order.

    `peaks` and `firing` are by layer, shape (images, units). `errors` are by the image's number: the error
    and its message of an image that cannot be used.
    """

    images: list[str]
    sha256: list[str]
    difference_hash: npt.NDArray[np.uint64]
    peaks: dict[Layer, npt.NDArray[np.float32]]
    firing: dict[Layer, npt.NDArray[np.int32]]
    errors: dict[int, tuple[str, str]] = field(default_factory=dict)

    def copy_image(self, source: int, target: int, *, noise: float | None = None) -> None:
        """Make image `target` an exact copy of `source`; with `noise`, one that was encoded anew."""
        self.difference_hash[target] = self.difference_hash[source]
        for layer, peaks in self.peaks.items():
            peaks[target] = peaks[source] * np.float32(1 + (noise or 0))
            self.firing[layer][target] = self.firing[layer][source]
        if noise is None:
            self.sha256[target] = self.sha256[source]
        else:
            self.difference_hash[target] ^= np.uint64(0b101)

    def set_peaks(self, image: int | slice, layer: Layer, unit: int | slice, peaks: float) -> None:
        """Give an image, or several, these peaks; at each place of the map if there are any at all."""
        self.peaks[layer][image, unit] = peaks
        self.firing[layer][image, unit] = places_of(layer) if peaks > 0 else 0


def places_of(layer: Layer) -> int:
    """How many places a map of the layer has."""
    return (SIDE_PX // layer.stride) ** 2


def layers_named(names: Sequence[str]) -> tuple[Layer, ...]:
    """The layers of these names, of the default network."""
    return tuple(layers_by_name()[name] for name in names)


def synthetic_scan(layers: Sequence[str], n_images: int, seed: int, *, hostile: bool = False) -> Scan:
    """Ordinary images. Units fire on between 20 % and all of them."""
    rng = np.random.default_rng([seed, 1])
    images = [f"photos/{seed}/image-{number:05d}.jpg" for number in range(n_images)]
    if hostile:
        images[: len(HOSTILE_NAMES)] = HOSTILE_NAMES[:n_images]
    peaks, firing = {}, {}
    for layer in layers_named(layers):
        units = np.random.default_rng(layer.index)
        shift_C, scale_C = units.uniform(-0.8, 3, layer.channels), units.uniform(1, 40, layer.channels)
        values_NC = (rng.standard_normal((n_images, layer.channels)) + shift_C) * scale_C
        peaks[layer] = np.maximum(values_NC, 0).astype(np.float32)
        share_NC = rng.uniform(0, 0.5, values_NC.shape)
        counts_NC = np.maximum(np.ceil(share_NC * places_of(layer)), 1)
        firing[layer] = np.where(peaks[layer] > 0, counts_NC, 0).astype(np.int32)
    return Scan(
        images=images,
        sha256=[hashlib.sha256(image.encode()).hexdigest() for image in images],
        difference_hash=rng.integers(0, 2**64, n_images, np.uint64),
        peaks=peaks,
        firing=firing,
    )


def plant(scan: Scan) -> None:
    """What an audit is to find: image 1 is a copy of 0, 3 nearly one of 2, 4 is unlike all, 5 is broken.

    Unit 7 of each layer is dead; unit 8 fires at every place.
    """
    scan.copy_image(0, 1)
    scan.copy_image(2, 3, noise=0.01)
    scan.errors[5] = ("ImageUnreadable", "image broken: cannot be decoded; replace it")
    for layer, peaks in scan.peaks.items():
        peaks[4] = 5 * peaks.max(axis=0)
        scan.set_peaks(slice(None), layer, 7, 0)
        scan.firing[layer][:, 8] = places_of(layer)
        peaks[:, 8] += 1


def audit_job(
    store: Store,
    scan: Scan,
    *,
    shard_size: int = 16,
    top: int = 9,
    baseline: str | None = None,
    request: Request | None = None,
) -> Job:
    """The job of a scan; `job.json` and the manifest stand afterwards."""
    specs = tuple(f"{layer.name}:max" for layer in scan.peaks)
    request = request or Request(specs=specs)
    job_fingerprint = fingerprint(request, scan.images)
    job = Job(
        id=f"audit-{job_fingerprint[:10]}",
        place=store.place,
        created=datetime(2026, 3, 4, 5, 6, tzinfo=UTC),
        request=request,
        audit=AuditOptions(top=top, baseline=baseline),
        shard_size=shard_size,
        n_images=len(scan.images),
        n_shards=-(-len(scan.images) // shard_size),
        fingerprint=job_fingerprint,
        versions={"deconvoy": "0.1.0"},
    )
    entries = [ManifestEntry(image=image, key=keys.image_key(image)) for image in scan.images]
    for shard in range(job.n_shards):
        part = entries[shard * shard_size : (shard + 1) * shard_size]
        store.write(keys.manifest_key(shard), manifest_bytes(part))
    store.write(keys.JOB, job.to_json())
    return job


def write_scan(store: Store, job: Job, scan: Scan, weights: str = WEIGHTS) -> None:
    """The records of the scan's shards."""
    for shard in range(job.n_shards):
        part = slice(shard * job.shard_size, min((shard + 1) * job.shard_size, job.n_images))
        store.write(keys.shard_key(shard), _record(_scan_table(job, scan, part), weights))


def write_atlas(store: Store, job: Job, gone: str | None = None) -> None:
    """The records of the atlas's shards, from the plans that stand. The image key `gone` has failed."""
    for chunk, (layer, _) in enumerate(atlas_chunks(job.layers)):
        plan = keys.plan_key(chunk)
        rows: list[dict[str, object]] = []
        for line in read_plan(store.read(plan), plan):
            for unit, rank, activation in line.winners:
                row = {"layer": layer.name, "unit": unit, "rank": rank, "activation": activation}
                row |= {"image": line.image, "image_key": line.key, "status": "ok"}
                if line.key == gone:
                    row |= {"status": "failed", "error": "ImageNotFound", "message": "it is not there"}
                else:
                    row |= _window(layer, unit, rank)
                rows.append(row)
        rows.sort(key=lambda row: (row["unit"], row["rank"]))
        table = pa.Table.from_pylist(rows, schema=ATLAS_SCHEMA)
        store.write(keys.shard_key(job.n_shards + chunk), _record(table, WEIGHTS))


def make_audit(
    store: Store,
    *,
    layers: Sequence[str] = ("pool4", "pool5"),
    n_images: int = 40,
    shard_size: int = 16,
    seed: int = 0,
    top: int = 9,
    baseline: str | None = None,
    finish: bool = True,
    planted: bool = True,
    hostile: bool = False,
) -> Job:
    """An audit in `store`, up to its tables; without `finish` its scan alone, not merged.

    `planted`: with the facts of `plant`, for which there must be six images or more. `hostile`: images of
    names that a page must not believe. `baseline`: the place of another such audit, in a folder. There are
    no pictures, no certificate and no page.
    """
    scan = synthetic_scan(layers, n_images, seed, hostile=hostile)
    if planted:
        plant(scan)
    job = audit_job(store, scan, shard_size=shard_size, top=top, baseline=baseline)
    write_scan(store, job, scan)
    if finish:
        finish_all(store, job)
    return job


def finish_all(store: Store, job: Job) -> records.JobSummary:
    """All that comes after the scan: the plans, the atlas's records and the tables."""
    from worker.audit import finish_audit, merge_scan

    merge_scan(store, job)
    write_atlas(store, job)
    return finish_audit(store, job)


def _record(table: pa.Table, weights: str) -> bytes:
    work = records.work_metadata({"read": 0.5, "forward": 1.25}, {"peak_rss_bytes": 1000})
    return records.to_parquet(table, {records.WEIGHTS_METADATA: weights.encode(), **work})


def _scan_table(job: Job, scan: Scan, part: slice) -> pa.Table:
    numbers = range(*part.indices(job.n_images))
    ok = [number not in scan.errors for number in numbers]
    errors = [scan.errors.get(number, (None, None)) for number in numbers]

    def known(values: Sequence[object]) -> list[object]:
        return [value if good else None for value, good in zip(values, ok, strict=True)]

    nonfinite_N = sum((~np.isfinite(peaks[part])).sum(axis=1) for peaks in scan.peaks.values())
    columns: dict[str, object] = {
        "image": scan.images[part],
        "image_key": [keys.image_key(image) for image in scan.images[part]],
        "status": ["ok" if good else "failed" for good in ok],
        "error": [error for error, _ in errors],
        "message": [message for _, message in errors],
        "source_sha256": known(scan.sha256[part]),
        "difference_hash": known(scan.difference_hash[part].tolist()),
        "nonfinite": known(np.asarray(nonfinite_N).tolist()),
    }
    sizes = {"width": SIDE_PX, "height": SIDE_PX, "source_width": 640, "source_height": 480}
    columns |= {name: known([size] * len(ok)) for name, size in sizes.items()}
    for layer in scan.peaks:
        columns[f"peak_{layer.name}"] = _fixed_lists(scan.peaks[layer][part], ok)
        columns[f"firing_{layer.name}"] = _fixed_lists(scan.firing[layer][part], ok)
    return pa.table(columns, schema=profile_schema(job.layers))


def _fixed_lists(values_NC: npt.NDArray[np.generic], ok: list[bool]) -> pa.Array:
    mask = pa.array([not good for good in ok])
    return pa.FixedSizeListArray.from_arrays(pa.array(values_NC.ravel()), values_NC.shape[1], mask=mask)


def _window(layer: Layer, unit: int, rank: int) -> dict[str, object]:
    left, side = (unit + rank) % 20, min(2 ** (layer.block + 1), 40)
    return {
        "y": rank % 2,
        "x": unit % 2,
        "left": left,
        "top": left,
        "right": left + side,
        "bottom": left + side,
        "source_box": [left * 10.0, left * 7.5, (left + side) * 10.0, (left + side) * 7.5],
        "other_unit_similarity": 0.2 + 0.5 * (unit % 10) / 10,
        "random_weights_similarity": 0.1 + 0.03 * rank,
        "nonfinite": 0,
        "scale": 3.5 + unit,
    }
