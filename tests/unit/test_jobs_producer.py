"""Jobs as the store alone tells of them; with Redis: tests/integration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Unpack

import pytest

from producer.jobs import JobHandle, list_jobs, open_job, prepare
from producer.planning import PlanOptions, make_plan
from worker.contract import keys, records
from worker.contract.errors import BrokerError, JobError, SettingsError
from worker.contract.jobs import Job, read_manifest
from worker.contract.records import Row
from worker.contract.settings import Settings


def prepared(photos: Path, **options: Unpack[PlanOptions]) -> JobHandle:
    chosen: PlanOptions = {"weights": "random:0", "shard_size": 2, **options}
    return prepare([str(photos)], str(photos.parent / "out"), make_plan(chosen), local=False)


def finish(handle: JobHandle, failed: tuple[str, ...] = ()) -> None:
    rows = [
        Row(
            image=entry.image,
            image_key=entry.key,
            status="failed" if Path(entry.image).name in failed else "ok",
            error="ImageUnreadable" if Path(entry.image).name in failed else None,
            message="cut short" if Path(entry.image).name in failed else None,
            spec=spec,
            layer="pool1",
            selection="max",
            shard=shard,
        )
        for shard in range(handle.job.n_shards)
        for entry in read_manifest(handle.store.read(keys.manifest_key(shard)), "")
        for spec in ("pool1:max", "pool2:max")
    ]
    for shard in range(handle.job.n_shards):
        data = records.to_parquet(records.table_of(row for row in rows if row.shard == shard))
        handle.store.write(keys.shard_key(shard), data)
    handle.store.write(keys.INDEX, records.to_parquet(records.table_of(rows)))
    bad = {row.image: row for row in reversed(rows) if row.status != "ok"}
    lines = [
        {name: getattr(row, name) for name in records.Failure.__annotations__}
        for row in reversed(bad.values())
    ]
    handle.store.write(keys.FAILURES, "".join(json.dumps(line) + "\n" for line in lines).encode())
    summary = {"n_images": 5, "n_failed": len(bad), "stages": {}, "slowest_stage": None, "resources": {}}
    handle.store.write(keys.SUMMARY, json.dumps(summary).encode())
    handle.store.write(keys.REPORT, b"<!doctype html>")


def test_the_manifest_is_cut_into_shards_in_order(photos: Path) -> None:
    handle = prepared(photos)

    slices = [read_manifest(handle.store.read(keys.manifest_key(shard)), "") for shard in range(3)]
    assert [[Path(entry.image).name for entry in part] for part in slices] == [
        ["0.png", "1.png"],
        ["2.png", "3.png"],
        ["4.png"],
    ]
    assert (handle.job.n_images, handle.job.n_shards) == (5, 3)


def test_the_id_tells_the_source_and_the_job_says_what_was_asked(photos: Path) -> None:
    handle = prepared(photos)

    job = Job.from_json((Path(handle.place) / "job.json").read_bytes(), "")
    assert handle.id == f"my-cats-{job.fingerprint[:10]}"
    assert job == handle.job
    assert job.versions.keys() == {"deconvoy", "python"}


def test_the_same_request_is_the_same_job_and_keeps_its_shards(photos: Path) -> None:
    first = prepared(photos)
    again = prepared(photos, shard_size=1)

    assert again.job == first.job


@pytest.mark.parametrize("options", [{"specs": ["pool1:max"]}, {"size_px": 64}, {"weights": "random:1"}])
def test_another_request_is_another_job(photos: Path, options: PlanOptions) -> None:
    assert prepared(photos, **options).id != prepared(photos).id


def test_one_more_image_is_another_job(photos: Path) -> None:
    before = prepared(photos)
    (photos / "5.png").touch()

    assert prepared(photos).id != before.id


def test_another_fingerprint_under_the_same_id_is_refused(photos: Path) -> None:
    path = Path(prepared(photos).place) / "job.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fingerprint": "0" * 64}))

    with pytest.raises(JobError, match="holds another job"):
        prepared(photos)


def test_without_redis_the_records_tell_how_far_a_job_is(photos: Path) -> None:
    handle = prepared(photos)
    handle.store.write(keys.shard_key(2), b"")

    status = open_job(handle.place).status()

    assert (status.n_done, status.n_images, status.n_shards_done, status.n_shards) == (1, 5, 1, 3)
    assert (status.state, status.live) == ("unfinished", False)
    assert handle.missing_shards() == [0, 1]


def test_a_finished_job_lists_each_failed_image_once_in_order(photos: Path) -> None:
    handle = prepared(photos)
    finish(handle, failed=("3.png", "1.png"))

    status = handle.wait()

    assert (status.state, status.n_done, status.n_failed) == ("finished", 5, 2)
    failures = [*handle.failures()]
    assert [(Path(failure.image).name, failure.shard) for failure in failures] == [("1.png", 0), ("3.png", 1)]
    assert failures[0].message == "cut short"
    assert handle.index().num_rows == 10


def test_a_job_without_its_page_is_not_finished(photos: Path) -> None:
    handle = prepared(photos)
    finish(handle)
    (Path(handle.place) / keys.REPORT).unlink()

    assert handle.status().state == "unfinished"


def test_an_unfinished_job_has_no_index(photos: Path) -> None:
    with pytest.raises(JobError, match="no index yet"):
        prepared(photos).index()


def test_a_job_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="there is no job"):
        open_job(str(tmp_path / "cats-0123456789"))


def test_submitting_without_redis_says_which_variable_is_missing(photos: Path) -> None:
    from producer import submit

    with pytest.raises(SettingsError, match="DECONVOY_REDIS_URL"):
        submit(str(photos), out="out", settings=Settings(redis_url=None))


def test_a_job_is_cancelled_and_goes_on_without_redis_being_asked(photos: Path) -> None:
    handle = prepared(photos)
    handle.cancel()
    assert open_job(handle.place).status().state == "cancelled"
    with pytest.raises(JobError, match="cancelled"):
        handle.wait()
    with pytest.raises(BrokerError, match="DECONVOY_REDIS_URL"):
        handle.resume()
    assert handle.status().state == "unfinished"


def test_only_a_finished_job_is_tried_again_and_then_is_not_finished(photos: Path) -> None:
    handle = prepared(photos)
    with pytest.raises(JobError, match="not finished"):
        handle.resume(failed=True)
    finish(handle, failed=("2.png",))
    with pytest.raises(BrokerError):
        handle.resume(failed=True)
    status = open_job(handle.place).status()
    assert (status.state, status.attempt, status.n_shards_done) == ("unfinished", 1, 2)
    assert handle.missing_shards() == [1]


def test_the_jobs_under_a_place_are_listed_without_redis(photos: Path) -> None:
    handle = prepared(photos)
    out = photos.parent / "out"
    (out / "something else").mkdir()
    (out / "note.txt").touch()
    assert list_jobs(str(out)) == {handle.id: handle.place}
    with pytest.raises(SettingsError, match="DECONVOY_REDIS_URL"):
        list_jobs(None)
