"""The records of a job: what is missing, the index they make, and what the work took."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.unit.shards import SMALL, WrappedStore, record_of, run
from tests.unit.standin import StandInEngine, Weights, make_job, noise_images
from worker.contract import keys, records
from worker.contract.errors import JobError, MessageError
from worker.contract.jobs import Request, Retry
from worker.contract.stages import STAGES
from worker.pipeline import compact
from worker.storage import Store, open_store
from worker.storage.standing import Todo, still_to_do


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "job")


def test_the_index_joins_all_shards_in_order(store: Store, tmp_path: Path) -> None:
    paths: list[Path | str] = [*noise_images(tmp_path, [(40, 40)] * 10)]
    paths[4] = "/nowhere/gone.png"
    request = Request(specs=("pool2:all", "pool1:top:2"), preprocessing=SMALL)
    job = make_job(store, paths, request, shard_size=4)
    assert still_to_do(store, job) == Todo(0, [0, 1, 2])
    for shard in (2, 0):
        run(store, job, shard=shard)
    assert still_to_do(store, job) == Todo(0, [1])
    with pytest.raises(JobError, match="1 of 3 shards are not done, the first is 1"):
        compact(store, job)
    run(store, job, shard=1)
    assert still_to_do(store, job) == Todo(0, [])
    excerpt = compact(store, job)
    table = records.from_parquet(store.read(keys.INDEX), keys.INDEX)
    expected = []
    for number, path in enumerate(paths):
        # A failed image has a row for each spec, a good one a row for each unit.
        specs = ["pool2:all", "pool1:top:2"] if number == 4 else ["pool2:all", "pool1:top:2", "pool1:top:2"]
        expected += [(str(path), spec, number // 4) for spec in specs]
    assert [(row["image"], row["spec"], row["shard"]) for row in table.to_pylist()] == expected
    # Of so few images the excerpt has all: the good ones first.
    good, bad = (
        table.filter(is_good) for is_good in (pc.field("status") == "ok", pc.field("status") != "ok")
    )
    assert excerpt.table.equals(pa.concat_tables([good, bad]))
    assert excerpt.table.schema.metadata == table.schema.metadata
    assert (excerpt.n_images, excerpt.n_failed) == (10, 1)
    summary = json.loads(store.read(keys.SUMMARY))
    assert (summary["n_images"], summary["n_failed"]) == (10, 1)
    assert summary["slowest_stage"] in STAGES
    (failure,) = map(json.loads, store.read(keys.FAILURES).splitlines())
    assert failure["image"] == "/nowhere/gone.png"
    assert (failure["status"], failure["error"]) == ("failed", "ImageNotFound")
    assert "/nowhere/gone.png" in failure["message"]
    # Once more gives the same file.
    before = store.read(keys.INDEX)
    compact(store, job)
    assert store.read(keys.INDEX) == before


def test_who_stood_still_before_the_index_does_not_undo_a_later_attempt(store: Store, tmp_path: Path) -> None:
    (image,) = noise_images(tmp_path, [(40, 40)])
    job = make_job(store, [tmp_path / "late.png"], Request(specs=("pool1:max",), preprocessing=SMALL))
    run(store, job)
    stalls = iter([True])

    def meanwhile(key: str) -> None:
        if key == keys.INDEX and next(stalls, False):
            image.rename(tmp_path / "late.png")
            store.write(keys.retry_key(1), Retry(attempt=1, shards=(0,)).to_json())
            run(store, job, attempt=1)
            assert compact(store, job).n_failed == 0

    excerpt = compact(WrappedStore(store, meanwhile), job)
    assert next(stalls, None) is None
    assert excerpt.n_failed == json.loads(store.read(keys.SUMMARY))["n_failed"] == 0
    assert records.from_parquet(store.read(keys.INDEX), keys.INDEX)["status"].to_pylist() == ["ok"]


def test_shards_of_different_weights_are_not_joined(store: Store, tmp_path: Path) -> None:
    job = make_job(store, noise_images(tmp_path, [(40, 40)] * 2), Request(specs=("pool1:max",)), shard_size=1)
    run(store, job, StandInEngine(weights=Weights("/a/net.pth", "a" * 64)), shard=0)
    run(store, job, StandInEngine(weights=Weights("/b/net.pth", "b" * 64)), shard=1)
    with pytest.raises(JobError, match=r"different weights \(/a/net.pth a+ and /b/net.pth b+\)"):
        compact(store, job)


def test_the_index_says_what_the_work_of_all_shards_took(store: Store, tmp_path: Path) -> None:
    job = make_job(
        store,
        noise_images(tmp_path, [(40, 40)] * 7),
        Request(preprocessing=SMALL),
        shard_size=4,
        batch_size=2,
    )
    for shard in (0, 1):
        run(store, job, shard=shard)
    by_shard = [records.summary_of(record_of(store, shard).schema.metadata) for shard in (0, 1)]
    of_job = records.summary_of(compact(store, job).table.schema.metadata)
    assert list(of_job["stages"]) == list(STAGES)
    for stage in STAGES:
        assert of_job["stages"][stage] == pytest.approx(sum(one["stages"][stage] for one in by_shard))
    for name in (
        "peak_rss_bytes",
        "most_loaded_ahead",
        "most_waiting_to_write",
        "most_bytes_waiting_to_write",
    ):
        assert of_job["resources"][name] == max(one["resources"][name] for one in by_shard) > 0
    # What stands in the file's own metadata is what a reader of it finds.
    footer = pq.ParquetFile(pa.BufferReader(store.read(keys.INDEX))).metadata.metadata
    assert records.summary_of(footer) == of_job


def test_the_slowest_stage_is_the_one_with_the_most_work() -> None:
    resources = {"peak_rss_bytes": 5}
    metadata = records.work_metadata({"read": 1.0, "wait": 9.0, "project": 3.0, "write": 2.0}, resources)
    assert records.summary_of(metadata) == {
        "stages": {"read": 1.0, "wait": 9.0, "project": 3.0, "write": 2.0},
        "slowest_stage": "project",
        "resources": {"peak_rss_bytes": 5},
    }
    assert records.summary_of(records.work_metadata({}, {}))["slowest_stage"] is None


@pytest.mark.parametrize("metadata", [None, {}, {records.STAGES_METADATA: b"{}"}])
def test_a_file_that_says_nothing_of_the_work_is_refused(metadata: dict[bytes, bytes] | None) -> None:
    with pytest.raises(MessageError, match=r"no deconvoy\.(stages|resources)"):
        records.summary_of(metadata)
