"""A shard that kills is worked on one image at a time; what failed is tried again on its own."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pytest

from tests.unit.shards import SMALL, record_of, rows_of, run
from tests.unit.standin import StandInEngine, make_job, noise_images
from worker.contract import keys, records
from worker.contract.errors import JobError
from worker.contract.jobs import Request, Retry
from worker.pipeline import Caution, compact
from worker.storage import Store, open_store
from worker.storage.standing import Todo, still_to_do

SPECS = ("pool1:max", "pool2:all")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "job")


def test_a_careful_shard_gives_what_an_ordinary_one_gives(store: Store, tmp_path: Path) -> None:
    paths = noise_images(tmp_path, [(40, 40), (50, 40), (40, 40), (40, 40)])
    paths[1].write_bytes(b"broken")
    job = make_job(store, paths, Request(specs=SPECS, preprocessing=SMALL))
    other = open_store(tmp_path / "other")
    make_job(other, paths, Request(specs=SPECS, preprocessing=SMALL))
    run(other, job)
    engine = StandInEngine()
    started: list[int | None] = []
    result = run(store, job, engine, caution=Caution(frozenset({0}), frozenset(), started.append))
    assert started == [1, 2, 3, 0, None]
    assert [n for n, _, _ in engine.batches] == [1, 1, 1]
    assert (result.n_images, result.n_failed) == (4, 1)
    known = [name for name in records.SCHEMA.names if name != "seconds"]
    assert record_of(store).select(known).equals(record_of(other).select(known))


def test_nothing_of_the_next_image_is_touched_before_the_one_in_hand_is_stored(
    store: Store, tmp_path: Path
) -> None:
    paths = noise_images(tmp_path, [(40, 40)] * 3)
    job = make_job(store, paths, Request(specs=SPECS, preprocessing=SMALL))
    stored: list[list[str]] = []

    def on_start(position: int | None) -> None:
        if position is None:
            return
        stored.append(sorted(store.list("recon/pool1-max/")))
        if position < 2:
            # If anything read ahead, it would have read this one while it was whole.
            paths[position + 1].write_bytes(b"broken meanwhile")

    run(store, job, caution=Caution(frozenset(), frozenset(), on_start))
    assert [len(keys_) for keys_ in stored] == [0, 1, 1]
    assert [row["status"] for row in rows_of(store)] == ["ok"] * 2 + ["failed"] * 4


def test_a_quarantined_image_is_rows_that_say_so_and_is_not_touched(store: Store, tmp_path: Path) -> None:
    paths = noise_images(tmp_path, [(40, 40)] * 3)
    paths[1].unlink()
    paths[1].mkdir()
    job = make_job(store, paths, Request(specs=SPECS, preprocessing=SMALL))
    started: list[int | None] = []
    result = run(store, job, caution=Caution(frozenset(), frozenset({1}), started.append))
    assert started == [0, 2, None]
    assert result.n_failed == 1
    rows = rows_of(store)
    assert [(row["image"], row["status"]) for row in rows] == [
        (str(path), "quarantined" if number == 1 else "ok")
        for number, path in enumerate(paths)
        for _ in SPECS
    ]
    assert rows[2]["error"] == "ImageQuarantined"
    assert "resume --failed" in rows[2]["message"]


def test_what_failed_is_tried_again_and_its_last_rows_count(store: Store, tmp_path: Path) -> None:
    paths = noise_images(tmp_path, [(40, 40)] * 6)
    whole = {number: paths[number].read_bytes() for number in (1, 3, 4)}
    for number in whole:
        paths[number].write_bytes(b"broken")
    job = make_job(store, paths, Request(specs=SPECS, preprocessing=SMALL), shard_size=3)
    for shard in (0, 1):
        run(store, job, shard=shard)
    compact(store, job)
    before = records.from_parquet(store.read(keys.INDEX), keys.INDEX)
    assert before.filter(pc.field("status") != "ok").num_rows == 3 * len(SPECS)

    paths[1].write_bytes(whole[1])
    paths[3].write_bytes(whole[3])
    store.write(keys.retry_key(1), Retry(attempt=1, shards=(0, 1)).to_json())
    assert still_to_do(store, job) == Todo(1, [0, 1])
    with pytest.raises(JobError, match="2 of 2 shards are not done"):
        compact(store, job)
    first = run(store, job, shard=0, attempt=1)
    assert (first.n_images, first.n_failed) == (1, 0)
    assert still_to_do(store, job) == Todo(1, [1])
    second = run(store, job, shard=1, attempt=1)
    assert (second.n_images, second.n_failed) == (2, 1)

    paths[4].write_bytes(whole[4])
    store.write(keys.retry_key(2), Retry(attempt=2, shards=(1,)).to_json())
    third = run(store, job, shard=1, attempt=2)
    assert (third.n_images, third.n_failed) == (1, 0)
    assert still_to_do(store, job) == Todo(2, [])

    compact(store, job)
    index = records.from_parquet(store.read(keys.INDEX), keys.INDEX)
    assert store.read(keys.FAILURES) == b""
    assert pc.all(pc.equal(index["status"], "ok")).as_py()
    assert [(row["image"], row["spec"]) for row in index.to_pylist()] == [
        (str(path), spec) for path in paths for spec in SPECS
    ]
    assert run(store, job, shard=1, attempt=2).committed is False
