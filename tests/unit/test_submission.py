"""How a job is written: from its sources through a temporary file to the slices in its place."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.jobs import JobHandle, open_job, prepare
from producer.planning import make_plan
from producer.spool import open_spool
from tests.s3_server import Answer, Request, answering, forward
from worker.contract import keys
from worker.contract.errors import JobError, SourceError, StorageDenied, StorageFull, UsageError
from worker.contract.jobs import ManifestEntry, fingerprint, manifest_line, read_manifest
from worker.storage import open_store


def prepared(source: str | Path, out: str | Path, shard_size: int = 2) -> JobHandle:
    plan = make_plan({"weights": "random:0", "shard_size": shard_size})
    return prepare([str(source)], str(out), plan, local=False)


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_a_line_of_the_manifest_is_what_pydantic_makes_of_its_entry(image: str, key: str) -> None:
    entry = ManifestEntry(image=image, key=key)

    assert manifest_line(image, key) == f"{entry.model_dump_json()}\n".encode()
    assert read_manifest(manifest_line(image, key), "") == [entry]


@pytest.mark.parametrize(("shard_size", "n_slices"), [(1, 100), (7, 15), (100, 1), (1000, 1)])
def test_slices_are_cut_in_order_whoever_writes_them(tmp_path: Path, shard_size: int, n_slices: int) -> None:
    images = [f"/new\nline/{number}.png" for number in range(100)]
    store = open_store(tmp_path)

    with open_spool() as spool:
        assert list(spool.passing(images)) == images
        assert spool.n_images == 100
        for _ in range(2):
            spool.write_slices(store, shard_size)

    slices = [read_manifest(store.read(key), key) for key in store.list("manifest/")]
    assert [len(part) for part in slices[:-1]] == [shard_size] * (n_slices - 1)
    assert [entry.image for part in slices for entry in part] == images


def test_the_fingerprint_is_that_of_the_images_in_order(photos: Path, tmp_path: Path) -> None:
    handle = prepared(photos, tmp_path)

    images = [str(photos / f"{number}.png") for number in range(5)]
    assert handle.job.fingerprint == fingerprint(handle.job.request, images)


def test_a_full_disk_is_said_in_one_line() -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with (
            pytest.raises(StorageFull, match=r"list of images cannot be kept.*TMPDIR"),
            open_spool() as spool,
        ):
            for _ in spool.passing(f"/{number}.png" for number in range(10_000)):
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_no_source_and_no_place_are_refused(tmp_path: Path) -> None:
    plan = make_plan({"weights": "random:0"})

    with pytest.raises(SourceError, match="no source is named"):
        prepare([], str(tmp_path), plan, local=False)
    for out in ("", "s3://", "http://host/out"):
        with pytest.raises(UsageError):
            prepare(["/no/such/source"], out, plan, local=False)


def test_an_image_outside_the_roots_leaves_nothing_behind(photos: Path, tmp_path: Path) -> None:
    plan = make_plan({"weights": "random:0"})

    with pytest.raises(SourceError, match="does not lie under an allowed root"):
        prepare([str(photos)], str(tmp_path / "out"), plan, local=False, allowed_roots=["/elsewhere"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["s3://{bucket}", "s3://{bucket}/", "s3://{bucket}/some/results/"])
def test_a_job_stands_in_a_bucket_as_in_a_folder(
    photos: Path, tmp_path: Path, s3_bucket: str, out: str
) -> None:
    place = out.format(bucket=s3_bucket)

    handle = prepared(photos, place)
    again = prepared(photos, place)
    opened = open_job(f"{handle.place}/")
    local = prepared(photos, tmp_path)

    assert handle.place == f"{place.rstrip('/')}/my-cats-{local.job.fingerprint[:10]}"
    assert handle.job == again.job == opened.job
    assert opened.status().n_images == 5
    for key in map(keys.manifest_key, range(3)):
        assert handle.store.read(key) == local.store.read(key)


@pytest.mark.parametrize(
    "source", ["s3://{bucket}/My Cats", "s3://{bucket}/My Cats/", "s3://{bucket}/My Cats.txt"]
)
def test_the_id_tells_the_source_in_a_bucket(s3_bucket: str, tmp_path: Path, source: str) -> None:
    from worker.storage.client import s3_client

    for key, data in (("My Cats/a.png", b""), ("My Cats.txt", b"My Cats/a.png")):
        s3_client().put_object(Bucket=s3_bucket, Key=key, Body=data)

    handle = prepared(source.format(bucket=s3_bucket), tmp_path)

    assert handle.id.startswith("my-cats-")
    assert [entry.image for entry in read_manifest(handle.store.read(keys.manifest_key(0)), "")] == [
        f"s3://{s3_bucket}/My Cats/a.png"
    ]


def test_a_job_that_is_not_in_the_bucket_is_named(s3_bucket: str) -> None:
    with pytest.raises(JobError, match=f"there is no job 's3://{s3_bucket}/cats-0123456789'"):
        open_job(f"s3://{s3_bucket}/cats-0123456789")


def test_a_submission_that_breaks_off_is_gone_on_with(
    photos: Path, s3_endpoint: str, s3_bucket: str, use_s3: Callable[[str], object]
) -> None:
    def refusing_one(request: Request) -> Answer:
        if re.search(r"manifest/000003", request.path):
            return Answer(status=403)
        return forward(request, s3_endpoint)

    with answering(refusing_one) as endpoint:
        use_s3(endpoint)
        with pytest.raises(StorageDenied, match=r"manifest/000003\.jsonl"):
            prepared(photos, f"s3://{s3_bucket}", shard_size=1)
        assert not list(open_store(f"s3://{s3_bucket}").list("job.json"))
    use_s3(s3_endpoint)
    handle = prepared(photos, f"s3://{s3_bucket}", shard_size=1)

    assert len(list(handle.store.list("manifest/"))) == handle.job.n_shards == 5


SUBMIT = """
import re, sys
from pathlib import Path
from producer.jobs import prepare
from producer.planning import make_plan

def peak_kib():
    # Not getrusage: it also counts the process that started this one.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

plan = make_plan({"weights": "random:0"})
prepare([sys.argv[1] + "/few.txt"], sys.argv[1], plan, local=False)
before = peak_kib()
prepare([sys.argv[1] + "/many.txt"], sys.argv[1], plan, local=False)
print(peak_kib() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_long_list_takes_little_memory(tmp_path: Path) -> None:
    n_images = 200_000
    long_folder = "folder-of-a-certain-length/" * 10
    (tmp_path / "few.txt").write_text("a.png\n")
    (tmp_path / "many.txt").write_text("".join(f"{long_folder}{n}.png\n" for n in range(n_images)))

    ended = subprocess.run(
        [sys.executable, "-c", SUBMIT, tmp_path], capture_output=True, text=True, check=True
    )

    # The names alone have some 300 bytes each; a digest takes about 100 in its set.
    assert 0 < int(ended.stdout) * 1024 / n_images < 180
