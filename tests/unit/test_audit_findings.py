"""What an audit finds by itself, on synthetic profiles with planted facts: these, and nothing else."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.audit_records import (
    WEIGHTS,
    Scan,
    audit_job,
    finish_all,
    layers_named,
    make_audit,
    plant,
    synthetic_scan,
    write_atlas,
    write_scan,
)
from tests.memory_store import MemoryStore
from worker.audit import finish_audit, merge_scan
from worker.audit.findings import findings_table
from worker.contract import keys, records
from worker.contract.audit_tables import ATLAS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, UNITS_SCHEMA
from worker.contract.audits import Finding, atlas_chunks
from worker.contract.errors import JobError
from worker.contract.jobs import Job

Row = dict[str, Any]

TABLES = {
    keys.ATLAS: ATLAS_SCHEMA,
    keys.UNITS: UNITS_SCHEMA,
    keys.IMAGES: IMAGES_SCHEMA,
    keys.FINDINGS: FINDINGS_SCHEMA,
}


def table_of(store: MemoryStore, key: str) -> pa.Table:
    return pq.ParquetFile(io.BytesIO(store.read(key))).read()


def rows_of(store: MemoryStore, key: str) -> list[Row]:
    rows: list[Row] = table_of(store, key).to_pylist()
    return rows


def audited(scan: Scan, shard_size: int = 16, top: int = 9) -> MemoryStore:
    store = MemoryStore()
    job = audit_job(store, scan, shard_size=shard_size, top=top)
    write_scan(store, job, scan)
    finish_all(store, job)
    return store


def found(store: MemoryStore) -> list[tuple[str, str]]:
    return [(row["kind"], row["subject"]) for row in rows_of(store, keys.FINDINGS)]


def scanned(store: MemoryStore, layers: Iterable[str] = ("pool1",)) -> Job:
    """An audit whose atlas has not been drawn."""
    job = make_audit(store, layers=tuple(layers), finish=False, planted=False)
    merge_scan(store, job)
    return job


def test_each_planted_fact_is_found_and_named_and_nothing_else() -> None:
    scan = synthetic_scan(("pool4", "pool5"), 500, seed=0)
    plant(scan)
    store = audited(scan, shard_size=128)
    first_copy, first_near = (min(scan.images[number : number + 2], key=keys.image_key) for number in (0, 2))
    assert found(store) == [
        ("decode-fault", scan.images[5]),
        ("outlier", scan.images[4]),
        ("exact-duplicate", first_copy),
        ("near-duplicate", first_near),
        ("dead-unit", "pool4:7"),
        ("dead-unit", "pool5:7"),
    ]
    whys = {row["kind"]: row["why"] for row in rows_of(store, keys.FINDINGS)}
    assert whys["decode-fault"] == "ImageUnreadable: image broken: cannot be decoded; replace it"
    assert all(image in whys["exact-duplicate"] for image in scan.images[:2])
    assert all(image in whys["near-duplicate"] for image in scan.images[2:4])
    assert whys["dead-unit"] == "none of 499 images makes it fire"


@pytest.mark.parametrize("seed", range(5))
def test_an_audit_of_ordinary_images_finds_nothing(seed: int) -> None:
    assert found(audited(synthetic_scan(("pool3", "pool5"), 300, seed), shard_size=150, top=2)) == []


def test_no_byte_depends_on_shards() -> None:
    scan = synthetic_scan(("pool1", "pool2"), 50, seed=0)
    plant(scan)
    one, many = audited(scan, shard_size=50), audited(scan, shard_size=7)
    for key in (keys.ATLAS, keys.UNITS, keys.FINDINGS):
        assert one.read(key) == many.read(key)
    images = [table_of(store, keys.IMAGES).drop_columns("shard") for store in (one, many)]
    assert images[0].equals(images[1])


def test_finishing_twice_gives_the_same_bytes_and_the_stated_columns() -> None:
    store = MemoryStore()
    job = make_audit(store, layers=("pool1",))
    ends = [keys.SUMMARY, keys.FAILURES, *TABLES]
    first = {key: store.read(key) for key in ends}
    assert finish_audit(store, job) == json.loads(first[keys.SUMMARY])
    assert {key: store.read(key) for key in ends} == first
    for key, schema in TABLES.items():
        assert table_of(store, key).schema.equals(schema)
        assert table_of(store, key).schema.metadata == {records.WEIGHTS_METADATA: WEIGHTS.encode()}


def test_the_summary_counts_images_and_adds_up_the_work_of_both_passes() -> None:
    store = MemoryStore()
    job = make_audit(store, layers=("pool3",), n_images=40, shard_size=10)
    n_records = job.n_shards + job.n_atlas_shards
    assert json.loads(store.read(keys.SUMMARY)) == {
        "n_images": 40,
        "n_failed": 1,
        "stages": {"read": 0.5 * n_records, "forward": 1.25 * n_records},
        "slowest_stage": "forward",
        "resources": {"peak_rss_bytes": 1000},
    }
    (failure,) = [json.loads(line) for line in store.read(keys.FAILURES).decode().splitlines()]
    assert failure == {
        "image": "photos/0/image-00005.jpg",
        "status": "failed",
        "error": "ImageUnreadable",
        "message": "image broken: cannot be decoded; replace it",
        "shard": 0,
    }


def test_the_summary_is_written_last() -> None:
    written: list[str] = []

    class Watched(MemoryStore):
        def write(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
            written.append(key)
            return super().write(key, data, if_absent=if_absent)

    make_audit(Watched(), layers=("pool1",))
    assert sorted(written[-6:-1]) == sorted([*TABLES, keys.FAILURES])
    assert written[-1] == keys.SUMMARY


def test_images_come_in_the_order_of_the_sources_with_their_scores() -> None:
    scan = synthetic_scan(("pool1", "pool5"), 60, seed=1)
    plant(scan)
    rows = rows_of(audited(scan), keys.IMAGES)
    assert [row["image"] for row in rows] == scan.images
    assert [row["shard"] for row in rows] == [number // 16 for number in range(60)]
    (layer,) = layers_named(["pool5"])
    peaks = np.delete(scan.peaks[layer], 5, axis=0).astype(np.float64)
    varying = np.flatnonzero(peaks.std(axis=0))
    z = (peaks - peaks.mean(axis=0))[:, varying] / peaks.std(axis=0)[varying]
    usable = [row for row in rows if row["status"] == "ok"]
    assert [row["outlier_score"] for row in usable] == pytest.approx(np.sqrt((z**2).mean(axis=1)).tolist())
    for row, z_units in zip(usable, z, strict=True):
        order = varying[np.argsort(-z_units, kind="stable")][:5]
        assert row["strongest_units"] == [f"pool5:{unit}" for unit in order]
    failed = rows[5]
    assert (failed["outlier_score"], failed["strongest_units"], failed["n_top"]) == (None, None, 0)


def test_an_image_knows_of_how_many_units_it_is_one_of_the_top() -> None:
    store = audited(synthetic_scan(("pool1", "pool2"), 40, seed=1), top=3)
    counted = Counter(key for row in rows_of(store, keys.UNITS) for key in row["top_image_keys"])
    assert {row["image_key"]: row["n_top"] for row in rows_of(store, keys.IMAGES) if row["n_top"]} == counted


def test_copies_and_near_copies_are_in_groups_named_by_their_first_key() -> None:
    scan = synthetic_scan(("pool5",), 40, seed=0)
    # The order of keys is another than that of the images.
    scan.images = [f"photos/image-{number * 17 % 40:02d}.jpg" for number in range(40)]
    scan.copy_image(3, 10)
    scan.copy_image(3, 20)
    scan.copy_image(3, 30, noise=0.02)
    scan.copy_image(5, 6, noise=0.02)
    rows = rows_of(audited(scan), keys.IMAGES)
    image_keys: list[str] = [row["image_key"] for row in rows]

    def groups(column: str) -> dict[str, set[int]]:
        named: dict[str, set[int]] = {}
        for number, row in enumerate(rows):
            if row[column] is not None:
                named.setdefault(row[column], set()).add(number)
        return named

    def first(members: set[int]) -> str:
        return min(image_keys[number] for number in members)

    assert groups("exact_group") == {first({3, 10, 20}): {3, 10, 20}}
    # The name is that of the first of the different files.
    assert groups("near_group") == {
        min(first({3, 10, 20}), image_keys[30]): {3, 10, 20, 30},
        first({5, 6}): {5, 6},
    }


def test_two_copies_of_one_file_are_no_near_duplicates() -> None:
    scan = synthetic_scan(("pool5",), 40, seed=0)
    scan.copy_image(3, 10)
    assert [kind for kind, _ in found(audited(scan))] == ["exact-duplicate"]


def test_close_hashes_of_different_pictures_are_no_near_duplicates() -> None:
    scan = synthetic_scan(("pool5",), 40, seed=0)
    scan.difference_hash[:] = 0
    assert found(audited(scan)) == []


def test_alike_profiles_with_distant_hashes_are_no_near_duplicates() -> None:
    scan = synthetic_scan(("pool5",), 40, seed=0)
    scan.copy_image(3, 10, noise=0.001)
    scan.difference_hash[10] ^= np.uint64(0b111111000)
    assert found(audited(scan)) == []


def test_a_thousand_blank_images_are_one_group() -> None:
    scan = synthetic_scan(("pool1",), 1200, seed=0)
    for number in range(1, 1000):
        scan.copy_image(0, number, noise=number * 1e-6)
        scan.difference_hash[number] = 0
    scan.difference_hash[0] = 0
    groups = [row["near_group"] for row in rows_of(audited(scan, shard_size=400, top=1), keys.IMAGES)]
    assert len(set(groups[:1000])) == 1
    assert groups[1000:] == [None] * 200


def test_an_image_with_peaks_that_are_not_finite_is_a_finding_and_in_no_statistic() -> None:
    scan = synthetic_scan(("pool1", "pool2"), 40, seed=0)
    (layer,) = layers_named(["pool1"])
    scan.peaks[layer][3, :2] = np.nan, np.inf
    store = audited(scan)
    assert found(store) == [("nonfinite", scan.images[3])]
    assert rows_of(store, keys.FINDINGS)[0]["number"] == 2
    assert {row["n_images"] for row in rows_of(store, keys.UNITS)} == {39}
    assert rows_of(store, keys.IMAGES)[3]["outlier_score"] is None
    assert rows_of(store, keys.IMAGES)[3]["status"] == "ok"


def test_an_audit_of_nothing_but_broken_images_says_only_that() -> None:
    scan = synthetic_scan(("pool1",), 3, seed=0)
    scan.errors = dict.fromkeys(range(3), ("ImageUnreadable", "broken"))
    assert found(audited(scan)) == [("decode-fault", image) for image in scan.images]


def test_too_few_images_have_no_outlier() -> None:
    scan = synthetic_scan(("pool1",), 29, seed=0)
    scan.peaks[layers_named(["pool1"])[0]][4] *= 50
    assert found(audited(scan)) == []


def test_many_dead_units_of_a_layer_are_one_finding() -> None:
    scan = synthetic_scan(("pool1", "pool2"), 40, seed=0)
    few, many = layers_named(["pool1", "pool2"])
    scan.set_peaks(slice(None), few, slice(0, 20), 0)
    scan.set_peaks(slice(None), many, slice(0, 21), 0)
    findings = rows_of(audited(scan), keys.FINDINGS)
    assert [row["subject"] for row in findings] == ["pool2", *sorted(f"pool1:{unit}" for unit in range(20))]
    assert findings[0]["number"] == 21
    assert findings[0]["why"].startswith(
        "21 units: pool2:0, pool2:1, pool2:10 and 18 more; of the first: none of"
    )


def test_an_image_that_has_gone_since_the_scan_is_one_finding() -> None:
    store = MemoryStore()
    job = scanned(store)
    gone = rows_of(store, keys.STATISTICS)[0]["top_image_keys"][0]
    write_atlas(store, job, gone)
    summary = finish_audit(store, job)
    (image,) = [row["image"] for row in rows_of(store, keys.IMAGES) if row["image_key"] == gone]
    assert found(store) == [("decode-fault", image)]
    assert "could not be drawn: ImageNotFound: it is not there" in rows_of(store, keys.FINDINGS)[0]["why"]
    assert summary["n_failed"] == 0


def changed_atlas(store: MemoryStore, job: Job, change: dict[str, float], unit: int) -> None:
    """Draw the atlas, with other values for one unit."""
    write_atlas(store, job)
    for chunk in range(len(atlas_chunks(job.layers))):
        key = keys.shard_key(job.n_shards + chunk)
        table = table_of(store, key)
        rows = [row | change if row["unit"] == unit else row for row in table.to_pylist()]
        metadata = table.schema.metadata
        store.write(key, records.to_parquet(pa.Table.from_pylist(rows, ATLAS_SCHEMA), metadata))


def test_reconstructions_that_are_not_finite_are_one_finding_a_unit() -> None:
    store = MemoryStore()
    job = scanned(store)
    changed_atlas(store, job, {"nonfinite": 4}, unit=5)
    finish_audit(store, job)
    assert found(store) == [("nonfinite", "pool1:5")]
    assert rows_of(store, keys.FINDINGS)[0]["number"] == 4 * 9


def test_a_unit_whose_pictures_another_kernel_draws_as_well_is_a_finding() -> None:
    store = MemoryStore()
    job = scanned(store)
    changed_atlas(store, job, {"other_unit_similarity": 0.98}, unit=5)
    finish_audit(store, job)
    assert found(store) == [("unspecific-unit", "pool1:5")]


def test_specificity_and_training_effect_are_means_over_the_winners_that_were_drawn() -> None:
    store = MemoryStore()
    job = scanned(store)
    gone = rows_of(store, keys.STATISTICS)[0]["top_image_keys"][0]
    write_atlas(store, job, gone)
    finish_audit(store, job)
    for row in rows_of(store, keys.UNITS):
        drawn = [rank for rank, key in enumerate(row["top_image_keys"]) if key != gone]
        assert row["specificity"] == pytest.approx(0.8 - 0.05 * (row["unit"] % 10))
        assert row["training_effect"] == pytest.approx(0.9 - 0.03 * sum(drawn) / len(drawn))


def test_the_atlas_has_a_row_for_each_winner_by_layer_unit_and_rank() -> None:
    store = audited(synthetic_scan(("pool1", "pool2"), 40, seed=2), top=4)
    assert [
        (row["layer"], row["unit"], row["rank"], row["image_key"], row["activation"])
        for row in rows_of(store, keys.ATLAS)
    ] == [
        (row["layer"], row["unit"], rank, key, activation)
        for row in rows_of(store, keys.UNITS)
        for rank, (key, activation) in enumerate(
            zip(row["top_image_keys"], row["top_activations"], strict=True)
        )
    ]


def test_a_unit_that_nothing_fires_has_no_specificity() -> None:
    scan = synthetic_scan(("pool1",), 40, seed=0)
    plant(scan)
    row = rows_of(audited(scan), keys.UNITS)[7]
    assert (row["state"], row["specificity"], row["training_effect"]) == ("dead", None, None)
    assert rows_of(audited(scan), keys.UNITS)[8]["state"] == "always-on"


def test_a_missing_atlas_record_is_named() -> None:
    store = MemoryStore()
    job = make_audit(store, layers=("pool3",))
    store.delete(keys.shard_key(job.n_shards + 1))
    with pytest.raises(JobError, match=rf"1 of 4 shards are not done, the first is {job.n_shards + 1}"):
        finish_audit(store, job)


def test_an_atlas_drawn_with_other_weights_is_refused() -> None:
    store = MemoryStore()
    job = make_audit(store, layers=("pool1",))
    key = keys.shard_key(job.n_shards)
    table = table_of(store, key)
    other = table.schema.metadata | {records.WEIGHTS_METADATA: b"other " + b"6" * 64}
    store.write(key, records.to_parquet(table, other))
    with pytest.raises(JobError, match="different weights"):
        finish_audit(store, job)


def test_findings_come_gravest_first_then_by_number() -> None:
    given = [
        Finding("b", "info", "x", 9.0, ""),
        Finding("a", "info", "x", 9.0, ""),
        Finding("c", "warning", "x", None, ""),
        Finding("c", "warning", "x", 1.0, ""),
        Finding("c", "warning", "y", 2.0, ""),
        Finding("z", "error", "x", None, ""),
    ]
    assert [tuple(row.values())[:4] for row in findings_table(given).to_pylist()] == [
        ("z", "error", "x", None),
        ("c", "warning", "y", 2.0),
        ("c", "warning", "x", 1.0),
        ("c", "warning", "x", None),
        ("a", "info", "x", 9.0),
        ("b", "info", "x", 9.0),
    ]
