"""S3, reading: bodies that break off, sizes, odd keys, pages of a listing."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.s3_server import Answer, Request, UseS3, answering, forward, localbucket_server
from worker.contract.errors import (
    ObjectNotFound,
    ObjectTooLarge,
    StorageError,
    StorageUnavailable,
    UsageError,
)
from worker.storage import open_store
from worker.storage.client import s3_client
from worker.storage.objects import is_s3, list_objects, read_object, split_uri


def test_a_body_that_is_cut_is_asked_for_again(use_s3: UseS3) -> None:
    answers = [Answer(body=b"0123456789", cut_at=n_bytes) for n_bytes in (4, 0, None)]
    with answering(lambda _: answers.pop(0)) as url:
        use_s3(url)
        assert read_object("s3://bucket/a") == b"0123456789"
    assert answers == []


def test_a_body_that_is_always_cut_is_given_up(use_s3: UseS3, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def cut(request: Request) -> Answer:
        asked.append(request.path)
        return Answer(body=b"0123456789", cut_at=9)

    with answering(cut) as url:
        use_s3(url)
        monkeypatch.setenv("DECONVOY_S3_MAX_ATTEMPTS", "3")
        with pytest.raises(StorageUnavailable, match="the connection was cut by") as caught:
            read_object("s3://bucket/a")
    assert asked == ["/bucket/a"] * 3
    assert caught.value.retryable


def test_a_server_that_falls_silent_in_a_body_is_asked_again(
    use_s3: UseS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    asked: list[str] = []

    def hang_once(request: Request) -> Answer:
        asked.append(request.path)
        if len(asked) == 1:
            return Answer(body=b"0123456789", cut_at=5, hang=over)
        return Answer(body=b"0123456789")

    with answering(hang_once) as url:
        use_s3(url)
        monkeypatch.setenv("DECONVOY_S3_READ_TIMEOUT_S", "1")
        try:
            assert read_object("s3://bucket/a") == b"0123456789"
        finally:
            over.set()
    assert len(asked) == 2


def test_an_object_that_is_too_large_is_not_read(use_s3: UseS3) -> None:
    # The server announces a terabyte and sends none of it: to wait for the body would end in a failure.
    with answering(lambda _: Answer(headers={"Content-Length": str(10**12)})) as url:
        use_s3(url)
        with pytest.raises(ObjectTooLarge, match="s3://bucket/a has 1000000000000 bytes, more than 1000"):
            read_object("s3://bucket/a", max_bytes=1000)


def test_an_object_of_just_the_allowed_size_is_read(s3_bucket: str) -> None:
    open_store(f"s3://{s3_bucket}").write("a", b"0123456789")
    assert read_object(f"s3://{s3_bucket}/a", max_bytes=10) == b"0123456789"
    with pytest.raises(ObjectTooLarge):
        read_object(f"s3://{s3_bucket}/a", max_bytes=9)


def test_an_object_of_unknown_size_is_not_read_where_the_size_matters(use_s3: UseS3) -> None:
    chunked = Answer(body=b"a\r\n0123456789\r\n0\r\n\r\n", headers={"Transfer-Encoding": "chunked"})
    with answering(lambda _: chunked) as url:
        use_s3(url)
        assert read_object("s3://bucket/a") == b"0123456789"
        with pytest.raises(StorageError, match="does not say how long it is"):
            read_object("s3://bucket/a", max_bytes=1000)


def test_a_server_that_ignores_ranges_is_found_out(use_s3: UseS3) -> None:
    with answering(lambda _: Answer(body=b"0123456789")) as url:
        use_s3(url)
        with pytest.raises(StorageError, match="does not give bytes 5-14, but all it has"):
            open_store("s3://bucket").read_range("a", 5, 10)


@pytest.mark.parametrize("n_bytes", [0, 60])
def test_a_listing_that_is_cut_is_asked_for_again(
    s3_endpoint: str, s3_bucket: str, use_s3: UseS3, n_bytes: int
) -> None:
    open_store(f"s3://{s3_bucket}").write("a", b"")
    n_cut = 0

    def cut_once(request: Request) -> Answer:
        nonlocal n_cut
        answer = forward(request, s3_endpoint)
        n_cut += 1
        return replace(answer, cut_at=n_bytes) if n_cut == 1 else answer

    with answering(cut_once) as url:
        use_s3(url)
        assert list(open_store(f"s3://{s3_bucket}").list("")) == ["a"]
    assert n_cut == 2


# Keys and pages

ODD_KEYS = [
    " ",
    "#",
    "%",
    "%2F",
    "+",
    "/leading",
    "a b",
    "a#b?c=d&e",
    "a+b",
    "a//b",
    "a;b,c'd\"e",
    "a\\b",
    "trailing/",
    "x.",
    "~",
    "ä/日本/🙂.png",
]


def test_objects_may_have_any_key_that_s3_allows(s3_bucket: str) -> None:
    for key in ODD_KEYS:
        s3_client().put_object(Bucket=s3_bucket, Key=key, Body=key.encode())
    uris = list(list_objects(f"s3://{s3_bucket}"))
    assert uris == [f"s3://{s3_bucket}/{key}" for key in sorted(ODD_KEYS)]
    assert [read_object(uri).decode() for uri in uris] == sorted(ODD_KEYS)
    assert list(list_objects(f"s3://{s3_bucket}/a#b?")) == [f"s3://{s3_bucket}/a#b?c=d&e"]


def test_a_listing_goes_on_beyond_a_page_and_is_asked_for_page_by_page(tmp_path: Path, use_s3: UseS3) -> None:
    # Given a server whose objects are files
    keys = [f"{number:04d}" for number in range(1005)]
    (tmp_path / "bucket" / "x").mkdir(parents=True)
    for key in keys:
        (tmp_path / "bucket" / "x" / key).touch()
    n_requests = 0

    def note(request: Request) -> Answer:
        nonlocal n_requests
        n_requests += 1
        return forward(request, server)

    with localbucket_server(tmp_path) as server, answering(note) as url:
        use_s3(url)
        # When
        found = open_store("s3://bucket/x").list("")
        # Then
        assert next(found) == "0000"
        assert n_requests == 1
        assert list(found) == keys[1:]
        assert n_requests == 2


def test_a_store_sees_only_its_own_prefix_and_no_markers_of_folders(s3_bucket: str) -> None:
    for key in ("a/b", "a/", "a/c/", "a/c/d", "a//e", "ab", "b"):
        s3_client().put_object(Bucket=s3_bucket, Key=key, Body=b"")
    assert list(open_store(f"s3://{s3_bucket}/a").list("")) == ["b", "c/d"]
    assert list(open_store(f"s3://{s3_bucket}/").list("")) == ["a/b", "a/c/d", "ab", "b"]


def test_a_key_that_is_no_text_is_refused(s3_bucket: str) -> None:
    with pytest.raises(StorageError, match="cannot be written in UTF-8"):
        open_store(f"s3://{s3_bucket}").write("a\udcff", b"")


def test_uris_are_split_at_the_first_slash() -> None:
    assert split_uri("s3://bucket/a//b?c#d") == ("bucket", "a//b?c#d")
    assert split_uri("s3://my.bucket_1") == ("my.bucket_1", "")
    assert is_s3("s3://bucket/a")
    for other in ("s3:/bucket/a", "S3://bucket/a", "/s3://bucket/a", "https://bucket/a"):
        assert not is_s3(other)
        with pytest.raises(UsageError, match="names no bucket"):
            split_uri(other)


@pytest.mark.parametrize(
    "uri", ["s3://", "s3:///a", "s3://b:c/a", "s3://bücket/a", "folder/a", "s3://bucket"]
)
def test_an_uri_that_names_no_object_is_a_wrong_use(uri: str) -> None:
    with pytest.raises(UsageError, match="s3://bucket/key"):
        read_object(uri)


def test_a_missing_object_is_named_by_its_uri(s3_bucket: str) -> None:
    with pytest.raises(ObjectNotFound, match=f"there is no object s3://{s3_bucket}/a b"):
        read_object(f"s3://{s3_bucket}/a b")
