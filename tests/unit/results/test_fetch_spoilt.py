"""Fetching what is spoilt, gone, hostile, or behind a store that fails: named, and not kept."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from tests.s3_server import Answer, Request, answering, error_answer, forward
from tests.unit.results.fetching import ReadingStore, counts, fetch
from tests.unit.results.made import (
    N_IMAGES,
    N_ROWS,
    computed_job,
    deconvoy,
    index_of,
    spoil,
)
from tests.unit.shards import objects_of
from worker.contract import keys, records
from worker.contract.errors import MessageError, StorageFull
from worker.contract.jobs import Job, Layout
from worker.storage import Store, open_store


def test_a_flipped_byte_is_named_and_not_kept(
    store: Store, job: Job, target: Store, tmp_path: Path, layout: Layout
) -> None:
    spoilt = index_of(store)[7]
    data = bytearray(store.read(spoilt["key"]))
    data[(spoilt["offset"] or 0) + 20] ^= 1
    store.write(spoilt["key"], bytes(data))

    ended = deconvoy("fetch", store.place, target.place, "--json")

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    summary = json.loads(ended.stdout)
    (failure,) = summary.pop("failures")
    assert line == f"failed: {failure['name']}: {failure['message']}"
    assert failure["image"] == spoilt["image"]
    assert "does not hold the bytes" in failure["message"]
    assert summary == {"rows": N_ROWS, "fetched": N_ROWS - 1, "kept": 0, "failed": 1}
    assert not target.exists(failure["name"])
    assert len(objects_of(target, "recon/")) == N_ROWS - 1
    rows = index_of(target)
    assert [n for n, row in enumerate(rows) if row["key"] is None] == [7]


def test_bytes_that_are_wrong_once_are_read_again(store: Store, job: Job, target: Store) -> None:
    turns = iter([True])
    spoiling = ReadingStore(store, lambda data: data[:-600] + bytes(600) if next(turns, False) else data)

    summary = fetch(spoiling, job, target, n_threads=1)

    assert counts(summary) == (N_ROWS, 0, 0)
    assert len(spoiling.reads) > len({row["key"] for row in index_of(store)})


def test_a_picture_that_is_gone_is_named_and_the_others_arrive(
    store: Store, tmp_path: Path, target: Store
) -> None:
    job = computed_job(store, tmp_path / "images", "tar")
    gone = index_of(store)[0]["key"]
    n_gone = sum(row["key"] == gone for row in index_of(store))
    table = records.from_parquet(store.read(keys.INDEX), keys.INDEX)
    elsewhere = pa.array([key.replace(gone, f"{gone}.gone") for key in table["key"].to_pylist()])
    table = table.set_column(table.schema.get_field_index("key"), "key", elsewhere)
    store.write(keys.INDEX, records.to_parquet(table))

    summary = fetch(store, job, target)

    assert counts(summary) == (N_ROWS - n_gone, 0, n_gone)
    assert {failure.message for failure in summary.failures} == {
        f"there is no object {gone + '.gone'!r} in {store.place}"
        if "://" not in store.place
        else f"there is no object {store.place}/{gone}.gone"
    }


@pytest.mark.parametrize("image_key", ["../../../outside", "/outside", "a/../../../../outside", "x" * 300])
def test_a_hostile_name_in_the_index_is_refused_and_nothing_leaves_the_folder(
    store: Store, job: Job, tmp_path: Path, image_key: str
) -> None:
    spoil(store, "image_key", image_key)
    target = open_store(tmp_path / "here" / "dest")
    before = set(tmp_path.rglob("*"))

    summary = fetch(store, job, target, inputs=True)

    assert (summary.n_fetched, summary.n_kept) == (N_ROWS - 5 + N_IMAGES - 1, 0)
    assert len(summary.failures) == 6
    dest = Path(target.place)
    assert {path for path in set(tmp_path.rglob("*")) - before if dest not in path.parents} <= {
        dest,
        dest.parent,
    }
    assert not [path for path in dest.rglob("*") if "outside" in path.name]


@pytest.mark.parametrize("key", ["../secret", "/etc/passwd", "recon/../../secret"])
def test_a_hostile_place_in_the_index_is_not_read(
    store: Store, job: Job, tmp_path: Path, target: Store, key: str
) -> None:
    (tmp_path / "secret").write_bytes(b"not for others")
    spoil(store, "key", key)

    summary = fetch(store, job, target)

    assert counts(summary) == (N_ROWS - 5, 0, 5)
    assert all("is not allowed" in failure.message for failure in summary.failures)


@pytest.mark.parametrize(
    ("column", "value"), [("offset", -5), ("offset", 2**40), ("length", -1), ("sha256", None)]
)
def test_a_nonsense_range_or_no_hash_spoils_its_own_picture_alone(
    store: Store, tmp_path: Path, target: Store, column: str, value: int | None
) -> None:
    job = computed_job(store, tmp_path / "images", "tar")
    spoil(store, column, value)

    assert counts(fetch(store, job, target)) == (N_ROWS - 5, 0, 5)


def test_an_index_that_is_none_is_an_error(store: Store, job: Job, target: Store) -> None:
    store.write(keys.INDEX, b"PAR1 and then nothing")
    with pytest.raises(MessageError, match=r"index\.parquet is no readable Parquet file"):
        fetch(store, job, target)
    store.write(keys.INDEX, records.to_parquet(pa.table({"image": ["a"]})))
    with pytest.raises(MessageError, match=r"index\.parquet has other columns"):
        fetch(store, job, target)


def test_a_full_disk_for_temporary_files_is_said(
    tmp_path: Path, target: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "job-1")
    job = computed_job(store, tmp_path / "images", "files")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))

    with pytest.raises(StorageFull, match="the selected rows cannot be kept among the temporary files"):
        fetch(store, job, target)


def test_a_store_that_no_longer_answers_ends_the_fetch_at_once(
    pictures_in_s3: str, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    def refusing(request: Request) -> Answer:
        if "/recon/" not in request.path:
            return forward(request, s3_endpoint)
        refused.append(request.path)
        return error_answer(503, "SlowDown")

    with answering(refusing) as endpoint:
        ended = deconvoy(
            "fetch",
            pictures_in_s3,
            str(tmp_path / "dest"),
            "--jobs",
            "2",
            DECONVOY_S3_ENDPOINT_URL=endpoint,
            DECONVOY_S3_MAX_ATTEMPTS="1",
        )

    assert (ended.returncode, ended.stdout) == (1, "")
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("deconvoy: ")
    assert len(refused) < N_ROWS
