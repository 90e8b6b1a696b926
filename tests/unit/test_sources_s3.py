"""From what a user names in a bucket to the images of a job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from producer.sources import find_images
from tests.s3_server import Answer, Request, answering, forward
from tests.unit.test_sources import write_manifest
from worker.contract.errors import SourceError, StorageError, UsageError

Put = Callable[..., None]


@pytest.fixture
def put(s3_bucket: str) -> Put:
    from worker.storage.client import s3_client

    def put_all(*keys: str, data: bytes = b"") -> None:
        for key in keys:
            s3_client().put_object(Bucket=s3_bucket, Key=key, Body=data)

    return put_all


def found(*sources: str) -> list[str]:
    return list(find_images(sources))


@pytest.mark.parametrize("source", ["s3://{bucket}/photos", "s3://{bucket}/photos/"])
def test_a_prefix_gives_its_images_sorted_and_no_hidden_ones(s3_bucket: str, put: Put, source: str) -> None:
    put("photos/", "photos/b.JPG", "photos/a.png", "photos/sub/c.webp", "photos/notes.txt", "photos/d")
    put("photos/.hidden.png", "photos/.cache/e.png", "photos/sub/.f.png", "photos2/g.png", "h.png")

    assert found(source.format(bucket=s3_bucket)) == [
        f"s3://{s3_bucket}/photos/{name}" for name in ("a.png", "b.JPG", "sub/c.webp")
    ]


@pytest.mark.parametrize("source", ["s3://{bucket}", "s3://{bucket}/"])
def test_a_bucket_gives_all_of_its_images(s3_bucket: str, put: Put, source: str) -> None:
    put("sub/b.png", "a.png")

    assert found(source.format(bucket=s3_bucket)) == [
        f"s3://{s3_bucket}/{key}" for key in ("a.png", "sub/b.png")
    ]


@pytest.mark.parametrize("key", ["sub/a.png", "sub/anything", "sub/ün ï+.jpg"])
def test_a_named_object_is_taken_alone_whatever_its_suffix(s3_bucket: str, put: Put, key: str) -> None:
    put(key, f"{key}.png", f"{key}/b.png")

    assert found(f"s3://{s3_bucket}/{key}") == [f"s3://{s3_bucket}/{key}"]
    assert found(f"s3://{s3_bucket}/{key}/") == [f"s3://{s3_bucket}/{key}/b.png"]


def test_a_prefix_of_more_than_a_page_is_read_as_a_stream(use_s3: Callable[[str], object]) -> None:
    asked: list[str] = []
    page = (
        "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>{0}</NextContinuationToken>"
        "<Contents><Key>p/{0}.png</Key></Contents></ListBucketResult>"
    )

    def endless(request: Request) -> Answer:
        asked.append(request.path)
        return Answer(body=page.format(len(asked)).encode())

    with answering(endless) as endpoint:
        use_s3(endpoint)
        images = find_images(["s3://bucket/p/"])
        assert [next(images) for _ in range(3)] == [f"s3://bucket/p/{n}.png" for n in (1, 2, 3)]
    assert len(asked) == 3


JOB = (
    "certificate.json",
    "index.parquet",
    "inputs/a.jpg",
    "inputs/b.jpg",
    "job.json",
    "manifest/000000.jsonl",
)
PICTURES = ("recon/pool1-all/a.png", "recon/pool1-all/b.png", "report/index.html", "shards/000000.parquet")


def test_results_of_an_earlier_job_are_no_photographs(s3_bucket: str, put: Put) -> None:
    for job in ("out/cats-0123456789", "zoo"):
        put(*(f"p/{job}/{key}" for key in (*JOB, *PICTURES)))
    put("p/a.png", "p/out/b.png", "p/zebra.png")

    assert found(f"s3://{s3_bucket}/p") == [
        f"s3://{s3_bucket}/p/{key}" for key in ("a.png", "out/b.png", "zebra.png")
    ]


def test_folders_that_are_only_named_like_a_jobs_are_photographs(s3_bucket: str, put: Put) -> None:
    keys = ["p/half/inputs/a.jpg", "p/half/job.json.png", "p/half/recon/x/a.png", "p/inputs/b.jpg"]
    put(*keys, "p/half/job.json")

    assert found(f"s3://{s3_bucket}/p") == [f"s3://{s3_bucket}/{key}" for key in keys]


def test_a_folder_is_asked_once_whether_it_is_a_jobs(
    s3_endpoint: str, s3_bucket: str, put: Put, use_s3: Callable[[str], object]
) -> None:
    put(*(f"p/job/{key}" for key in (*JOB, *PICTURES)), "p/a.png")
    asked: list[str] = []

    def counting(request: Request) -> Answer:
        asked.append(request.path)
        return forward(request, s3_endpoint)

    with answering(counting) as endpoint:
        use_s3(endpoint)
        assert found(f"s3://{s3_bucket}/p/") == [f"s3://{s3_bucket}/p/a.png"]
    # The listing, and for p/job its job.json and its manifest/.
    assert len(asked) == 3


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl", ".parquet"])
def test_a_manifest_in_a_bucket_is_relative_to_its_prefix(
    s3_bucket: str, put: Put, tmp_path: Path, suffix: str
) -> None:
    local = tmp_path / f"list{suffix}"
    write_manifest(
        local, ["sub/one, two.png", "./sub//one, two.png", "/data/three.png", "s3://other/four.png"]
    )
    put(f"lists/list{suffix}", data=local.read_bytes())

    assert found(f"s3://{s3_bucket}/lists/list{suffix}") == [
        f"s3://{s3_bucket}/lists/sub/one, two.png",
        "/data/three.png",
        "s3://other/four.png",
    ]


def test_a_manifest_in_a_bucket_that_climbs_is_refused_with_the_line(s3_bucket: str, put: Put) -> None:
    put("lists/list.txt", data=b"a.png\n../secret/b.png\n")

    with pytest.raises(SourceError, match=rf"s3://{s3_bucket}/lists/list.txt' line 2: .*a part '\.\.'"):
        found(f"s3://{s3_bucket}/lists/list.txt")


def test_a_prefix_outside_the_roots_is_refused(s3_bucket: str, put: Put) -> None:
    put("photos/a.png", "photos2/b.png")
    roots = [f"s3://{s3_bucket}/photos"]

    assert list(find_images([f"s3://{s3_bucket}/photos"], roots)) == [f"s3://{s3_bucket}/photos/a.png"]
    with pytest.raises(SourceError, match=r"photos2/b.png' does not lie under an allowed root"):
        list(find_images([f"s3://{s3_bucket}/"], roots))


def test_sources_of_all_kinds_keep_their_order_and_come_once(
    s3_bucket: str, put: Put, tmp_path: Path
) -> None:
    put("p/a.png", "p/b.png", "c.png")
    (tmp_path / "d.png").touch()
    (tmp_path / "m.txt").write_text(f"s3://{s3_bucket}/p/b.png\nd.png\ne.png\n")
    stdin = [f"s3://{s3_bucket}/c.png", "/f.png", f"s3://{s3_bucket}/p/a.png"]
    sources = [str(tmp_path / "m.txt"), f"s3://{s3_bucket}/p", "-", str(tmp_path)]

    assert list(find_images(sources, stdin=stdin)) == [
        f"s3://{s3_bucket}/p/b.png",
        f"{tmp_path}/d.png",
        f"{tmp_path}/e.png",
        f"s3://{s3_bucket}/p/a.png",
        f"s3://{s3_bucket}/c.png",
        "/f.png",
    ]


@pytest.mark.parametrize(
    ("source", "error", "reason"),
    [
        ("s3://{bucket}/nothing", SourceError, "nothing' holds no image"),
        ("s3://{bucket}/gone.png", SourceError, "gone.png' holds no image"),
        ("s3://{bucket}/gone.txt", SourceError, "gone.txt' does not exist"),
        ("s3://no-{bucket}/photos", StorageError, "no such bucket"),
        ("s3://no-{bucket}/list.csv", StorageError, "no such bucket"),
        ("s3://", UsageError, "names no bucket"),
    ],
)
def test_what_cannot_be_had_is_named(
    s3_bucket: str, source: str, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        found(source.format(bucket=s3_bucket))
