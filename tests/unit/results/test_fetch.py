"""Fetching from a folder and from S3, in both layouts: what arrives, is read again, and is not kept."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from producer.fetch import Fetch
from producer.selection import make_selection
from tests.s3_server import Answer, Request, answering, forward
from tests.unit.results.fetching import ReadingStore, counts, fetch
from tests.unit.results.made import (
    N_IMAGES,
    N_ROWS,
    SPECS,
    clean_environment,
    command,
    computed_job,
    deconvoy,
    index_of,
)
from tests.unit.shards import objects_of
from worker.contract import keys, records
from worker.contract.errors import JobError, UsageError
from worker.contract.jobs import Job, Layout
from worker.storage import Store, open_store


def test_every_picture_arrives_as_layout_files_has_it(
    store: Store, job: Job, target: Store, tmp_path: Path
) -> None:
    files = open_store(tmp_path / "as-files")
    computed_job(files, tmp_path / "images", "files")

    summary = fetch(store, job, target, inputs=True)

    assert counts(summary) == (N_ROWS + N_IMAGES, 0, 0)
    assert summary.n_rows == N_ROWS
    expected = objects_of(files, "recon/") | objects_of(files, "inputs/")
    fetched = objects_of(target)
    assert set(fetched) - set(expected) == {keys.INDEX}
    assert {name: fetched[name] for name in expected} == expected


def test_the_index_beside_them_is_the_jobs_with_each_key_leading_to_its_file(
    store: Store, job: Job, target: Store
) -> None:
    fetch(store, job, target)

    moved = {"key", "offset", "length", "input_key", "input_offset", "input_length"}
    rows = index_of(target)
    assert [{name: row[name] for name in row if name not in moved} for row in rows] == [
        {name: row[name] for name in row if name not in moved} for row in index_of(store)
    ]
    for row in rows:
        assert hashlib.sha256(target.read(row["key"])).hexdigest() == row["sha256"]
        assert {row[name] for name in moved if name != "key"} == {None}


def test_the_index_says_which_weights_computed_it(store: Store, job: Job, target: Store) -> None:
    fetch(store, job, target, ("pool1:max",))

    metadata = pq.ParquetFile(pa.BufferReader(target.read(keys.INDEX))).schema_arrow.metadata
    assert metadata[records.WEIGHTS_METADATA] == b"stand-in " + b"0" * 64


@pytest.mark.parametrize(
    ("specs", "globs", "n_pictures"),
    [
        (("4:max",), (), N_IMAGES),
        (("pool1:max", " 4 : max ", "pool3:top:3"), (), 4 * N_IMAGES),
        ((), ("noise0001.png",), 5),
        ((), ("*1.png", "*/images/noise0003.*"), 10),
        (("pool2:all",), ("*noise000[!0].png",), N_IMAGES - 1),
    ],
)
def test_only_what_is_selected_is_read_and_arrives(
    store: Store, job: Job, target: Store, specs: tuple[str, ...], globs: tuple[str, ...], n_pictures: int
) -> None:
    reading = ReadingStore(store)

    summary = fetch(reading, job, target, specs, globs)

    assert counts(summary) == (n_pictures, 0, 0)
    selection = make_selection(job, specs, globs)
    wanted = [
        row for row in index_of(store) if row["spec"] in selection.specs and selection.matches(row["image"])
    ]
    assert [row["sha256"] for row in index_of(target)] == [row["sha256"] for row in wanted]
    assert len(objects_of(target, "recon/")) == n_pictures == len(wanted)
    assert {key for key, _, _ in reading.reads} == {row["key"] for row in wanted}


def test_what_stands_is_not_read_again_and_what_is_wrong_is(store: Store, job: Job, target: Store) -> None:
    fetch(store, job, target, inputs=True)
    names = sorted(objects_of(target, "recon/"))
    (Path(target.place) / names[3]).unlink()
    target.write(names[7], b"cut sho")
    before = objects_of(target)
    reading = ReadingStore(store)

    summary = fetch(reading, job, target, inputs=True)

    assert counts(summary) == (2, N_ROWS + N_IMAGES - 2, 0)
    assert len(reading.reads) <= 2
    assert sum(length or 0 for _, _, length in reading.reads) < 2 * 64 * 1024
    hashes = {row["key"]: row["sha256"] for row in index_of(target)}
    assert {name: hashlib.sha256(target.read(name)).hexdigest() for name in names} == hashes
    assert {**objects_of(target), names[3]: b"", names[7]: b""} == {**before, names[3]: b"", names[7]: b""}


def test_neighbours_in_an_archive_come_in_one_request(store: Store, tmp_path: Path, target: Store) -> None:
    job = computed_job(store, tmp_path / "images", "tar")
    reading = ReadingStore(store)

    fetch(reading, job, target, inputs=True)

    assert sorted(key for key, _, _ in reading.reads) == sorted({row["key"] for row in index_of(store)})


def test_rows_of_failed_images_are_selected_and_have_no_picture(
    store: Store, tmp_path: Path, target: Store, layout: Layout
) -> None:
    job = computed_job(store, tmp_path / "images", layout, also=["/no/photo.png"])

    summary = fetch(store, job, target)

    assert counts(summary) == (N_ROWS, 0, 0)
    assert summary.n_rows == N_ROWS + len(SPECS)
    failed = [row for row in index_of(target) if row["status"] == "failed"]
    assert [(row["spec"], row["key"], row["error"]) for row in failed] == [
        (spec, None, "ImageNotFound") for spec in SPECS
    ]


def test_what_is_not_there_is_an_error_that_says_what_is(store: Store, job: Job, target: Store) -> None:
    with pytest.raises(
        UsageError, match=r"job job-1 has no pool4:max: it has pool1:max, pool2:all, pool3:top:3"
    ):
        fetch(store, job, target, ("pool1:max", "pool4:max"))
    with pytest.raises(
        UsageError, match=r"no image .* '\*\.gif'.* it has 5 images with pool1:max, pool2:all"
    ):
        fetch(store, job, target, (), ("*.gif",))
    assert objects_of(target) == {}


def test_a_jobs_own_folder_is_not_fetched_into(store: Store, job: Job, tmp_path: Path) -> None:
    other = open_store(tmp_path / "other")
    other.write(keys.JOB, b"{}")

    with pytest.raises(UsageError, match="is a job's own place"):
        fetch(store, job, other)


def test_of_an_unfinished_job_the_shards_that_are_done_are_fetched(
    store: Store, tmp_path: Path, target: Store, layout: Layout
) -> None:
    computed_job(store, tmp_path / "images", layout, shards=[0, 2])

    ended = deconvoy("fetch", store.place, target.place, "--spec", "4:max")

    assert (ended.returncode, ended.stdout) == (0, "3 fetched, 0 kept, 0 failed\n")
    assert ended.stderr == "job job-1 is unfinished: 2 of its 3 shards are done and are taken\n"
    assert [Path(row["image"]).name for row in index_of(target)] == [
        "noise0000.png",
        "noise0001.png",
        "noise0004.png",
    ]


def test_a_job_of_which_nothing_is_done_is_an_error(store: Store, tmp_path: Path, target: Store) -> None:
    job = computed_job(store, tmp_path / "images", "files", shards=[])

    with pytest.raises(JobError, match="no shard of job job-1 is done yet"):
        fetch(store, job, target)


def test_redis_is_not_needed(tmp_path: Path, target: Store) -> None:
    store = open_store(tmp_path / "job-1")
    computed_job(store, tmp_path / "images", "tar")

    ended = deconvoy("fetch", store.place, target.place, DECONVOY_REDIS_URL="redis://127.0.0.1:1/0")

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{N_ROWS} fetched, 0 kept, 0 failed\n", "")


@pytest.mark.parametrize("target_place", ["s3://bucket/dest", "https://example.org/dest"])
def test_only_a_folder_can_be_fetched_into(tmp_path: Path, target_place: str) -> None:
    ended = deconvoy("fetch", str(tmp_path), target_place)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert "is no folder of this machine" in ended.stderr


def test_progress_comes_to_its_end(tmp_path: Path, target: Store) -> None:
    store = open_store(tmp_path / "job-1")
    job = computed_job(store, tmp_path / "images", "files")
    seen: list[tuple[int, int]] = []

    Fetch(job, store, target).run(
        make_selection(job, (), ()),
        on_progress=lambda summary: seen.append((summary.n_done, summary.n_pictures)),
    )

    assert seen == [(n + 1, N_ROWS) for n in range(N_ROWS)]


def test_a_fetch_that_was_killed_goes_on_without_reading_what_stands(
    pictures_in_s3: str, s3_endpoint: str, tmp_path: Path
) -> None:
    n_before, target = 9, open_store(tmp_path / "dest")
    asked: list[str] = []
    lock, silent, released = threading.Lock(), threading.Event(), threading.Event()

    def until_silent(request: Request) -> Answer | None:
        with lock:
            if "/recon/" in request.path:
                asked.append(request.path)
            silence = len(asked) > n_before
        if silence:
            silent.set()
            released.wait(60)
            return None
        return forward(request, s3_endpoint)

    arguments = command("fetch", pictures_in_s3, target.place, "--jobs", "2")
    with answering(until_silent) as slow:
        with subprocess.Popen(arguments, env=clean_environment(DECONVOY_S3_ENDPOINT_URL=slow)) as process:
            came_so_far = silent.wait(60)
            process.kill()
        released.set()
    assert came_so_far
    standing = set(objects_of(target, "recon/"))
    assert n_before - 1 <= len(standing) <= n_before
    asked.clear()

    def counting(request: Request) -> Answer:
        if "/recon/" in request.path:
            asked.append(request.path)
        return forward(request, s3_endpoint)

    with answering(counting) as endpoint:
        ended = deconvoy("fetch", pictures_in_s3, target.place, "--json", DECONVOY_S3_ENDPOINT_URL=endpoint)

    assert json.loads(ended.stdout) == {
        "rows": N_ROWS,
        "fetched": N_ROWS - len(standing),
        "kept": len(standing),
        "failed": 0,
        "failures": [],
    }
    assert len(asked) == N_ROWS - len(standing)
    assert not [path for path in asked if any(path.endswith(name) for name in standing)]
