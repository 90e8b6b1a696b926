"""Which files and objects are read as images, and what is said of the others."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.s3_server import Answer, answering, error_answer
from tests.s3_server import Request as HttpRequest
from tests.unit.shards import LIMITS, rows_of, run
from tests.unit.standin import make_job, noise_images
from worker.contract.errors import (
    ImageError,
    ImageNotAllowed,
    ImageNotFound,
    ImageTooLarge,
    ImageUnavailable,
    ImageUnreadable,
    StorageError,
)
from worker.contract.jobs import Request
from worker.pipeline.source import read_image
from worker.storage import open_store

LIMIT = 1000


def test_a_file_comes_byte_for_byte_up_to_the_limit(tmp_path: Path) -> None:
    data = bytes(range(250)) * 4
    path = tmp_path / "ünïcode name.jpg"
    path.write_bytes(data)
    assert read_image(str(path), LIMIT, ()) == data


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing: reading it would not end
    with pytest.raises(ImageTooLarge, match="1099511627776 bytes, more than the 1000 allowed"):
        read_image(str(path), LIMIT, ())


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.jpg").touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    cases: list[tuple[str, type[ImageError], str]] = [
        ("absent.jpg", ImageNotFound, "no file"),
        ("empty.jpg/a.jpg", ImageNotFound, "no file"),
        ("x" * 300, ImageNotFound, "no file"),
        ("null\0.jpg", ImageNotFound, "null"),
        ("folder", ImageUnreadable, "folder"),
        ("empty.jpg", ImageUnreadable, "empty"),
        ("pipe.jpg", ImageUnreadable, "pipe"),
        ("loop.jpg", ImageUnreadable, "symbolic links"),
    ]
    for name, error, words in cases:
        with pytest.raises(error, match=words):
            read_image(str(tmp_path / name), LIMIT, ())
    with pytest.raises(ImageUnreadable, match="device"):
        read_image("/dev/zero", LIMIT, ())


def test_a_file_without_the_right_to_read_says_so(tmp_path: Path) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(b"1")
    path.chmod(0)
    as_root = os.geteuid() == 0
    try:
        if as_root:
            os.seteuid(65534)
        with pytest.raises(ImageUnreadable, match="Permission denied"):
            read_image(str(path), LIMIT, ())
    finally:
        if as_root:
            os.seteuid(0)


def test_a_machine_out_of_file_descriptors_is_not_the_images_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"1")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(StorageError, match="Too many open files"):
            read_image(str(path), LIMIT, ())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_what_lies_outside_the_roots_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    # To open it would be another error.
    absent = tmp_path / "absent.jpg"
    (tmp_path / "in" / "link.jpg").symlink_to(absent)

    for image in (str(absent), str(tmp_path / "in" / "link.jpg"), "http://127.0.0.1:9/a.jpg"):
        with pytest.raises(ImageNotAllowed):
            read_image(image, LIMIT, (str(tmp_path / "in"),))


def test_a_file_under_a_root_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"1")

    assert read_image(str(tmp_path / "a.jpg"), LIMIT, ("s3://bucket", str(tmp_path))) == b"1"


def put(bucket: str, key: str, data: bytes) -> str:
    from worker.storage.client import s3_client

    s3_client().put_object(Bucket=bucket, Key=key, Body=data)
    return f"s3://{bucket}/{key}"


@pytest.mark.parametrize("key", ["a.jpg", "deep/ünï code+%2F?.jpg", "no suffix", "a//b/./c"])
def test_an_object_comes_byte_for_byte_up_to_the_limit(s3_bucket: str, key: str) -> None:
    data = bytes(range(250)) * 4

    assert read_image(put(s3_bucket, key, data), LIMIT, (f"s3://{s3_bucket}",)) == data


def test_what_is_no_image_in_a_bucket_is_named(s3_bucket: str) -> None:
    put(s3_bucket, "huge.jpg", bytes(LIMIT + 1))
    put(s3_bucket, "empty.jpg", b"")
    cases: list[tuple[str, type[ImageError], str]] = [
        (f"s3://{s3_bucket}/absent.jpg", ImageNotFound, "no object"),
        (f"s3://{s3_bucket}/huge.jpg", ImageTooLarge, "1001 bytes, more than 1000; .*MAX_IMAGE_BYTES"),
        (f"s3://{s3_bucket}/empty.jpg", ImageUnreadable, "empty"),
        (f"s3://no-{s3_bucket}/a.jpg", ImageUnreadable, "no such bucket"),
        (f"s3://{s3_bucket}/../a.jpg", ImageNotAllowed, "a part '..'"),
    ]
    for image, error, words in cases:
        with pytest.raises(error, match=words) as caught:
            read_image(image, LIMIT, ())
        assert image in str(caught.value)


UseS3 = Callable[[str], dict[str, str]]


def test_an_object_without_the_right_to_read_says_so(use_s3: UseS3) -> None:
    with answering(lambda _request: error_answer(403, "AccessDenied", "Access Denied")) as endpoint:
        use_s3(endpoint)
        with pytest.raises(ImageUnreadable, match=r"s3://bucket/a.jpg: AccessDenied.*check the credentials"):
            read_image("s3://bucket/a.jpg", LIMIT, ())


def test_a_store_that_does_not_answer_is_not_the_images_fault(
    use_s3: UseS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECONVOY_S3_MAX_ATTEMPTS", "2")
    with answering(lambda _request: error_answer(503, "SlowDown")) as endpoint:
        use_s3(endpoint)
        with pytest.raises(ImageUnavailable, match=r"s3://bucket/a.jpg.*resume --failed") as caught:
            read_image("s3://bucket/a.jpg", LIMIT, ())
    assert caught.value.retryable


def test_an_object_outside_the_roots_is_not_asked_for(use_s3: UseS3) -> None:
    asked: list[HttpRequest] = []

    def answer(request: HttpRequest) -> Answer:
        asked.append(request)
        return Answer(body=b"1")

    with answering(answer) as endpoint:
        use_s3(endpoint)
        for image in ("s3://bucket/photos2/a.jpg", "s3://other/photos/a.jpg", "s3://bucket/photos/../a.jpg"):
            with pytest.raises(ImageNotAllowed):
                read_image(image, LIMIT, ("s3://bucket/photos",))
        assert asked == []
        assert read_image("s3://bucket/photos/a.jpg", LIMIT, ("s3://bucket/photos",)) == b"1"


def test_a_shard_reads_what_is_allowed_and_has_a_failed_row_for_the_rest(
    s3_bucket: str, tmp_path: Path
) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    [picture] = noise_images(inside, [(40, 40)])
    [secret] = noise_images(outside, [(40, 40)])
    images = [
        str(picture),
        put(s3_bucket, "photos/a.png", picture.read_bytes()),
        str(secret),
        put(s3_bucket, "other/a.png", picture.read_bytes()),
        f"s3://{s3_bucket}/photos/gone.png",
    ]
    limits = replace(LIMITS, allowed_roots=(str(inside), f"s3://{s3_bucket}/photos"))
    store = open_store(f"s3://{s3_bucket}/job")

    run(store, make_job(store, images, Request(specs=("pool1:max",))), limits=limits)

    assert [(row["image"], row["status"], row["error"]) for row in rows_of(store)] == [
        (images[0], "ok", None),
        (images[1], "ok", None),
        (images[2], "failed", "ImageNotAllowed"),
        (images[3], "failed", "ImageNotAllowed"),
        (images[4], "failed", "ImageNotFound"),
    ]
