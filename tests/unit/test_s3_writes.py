"""S3, writing: commits whose answer is lost, conflicts, uploads in parts."""

from __future__ import annotations

import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from tests.s3_server import Answer, Request, UseS3, answering, error_answer, forward, ignoring_conditions
from worker.contract.errors import (
    StorageError,
    StorageUnavailable,
)
from worker.storage import bucket as bucket_module
from worker.storage import open_store
from worker.storage.client import s3_client


def test_a_commit_whose_answer_is_lost_is_ours(s3_endpoint: str, s3_bucket: str, use_s3: UseS3) -> None:
    # Given a line that breaks after the first PUT has been done
    puts: list[int] = []

    def lose_first(request: Request) -> Answer | None:
        answer = forward(request, s3_endpoint)
        if request.method == "PUT":
            puts.append(answer.status)
        return None if puts == [200] and request.method == "PUT" else answer

    with answering(lose_first) as url:
        use_s3(url)
        # When
        won = open_store(f"s3://{s3_bucket}").write("shards/0.parquet", b"mine", if_absent=True)
    # Then the retry met its own object
    assert puts == [200, 412]
    assert won


@pytest.mark.parametrize("theirs", [b"theirs", b"a longer one of theirs", b""])
def test_a_commit_that_is_retried_and_meets_anothers_object_is_lost(
    s3_endpoint: str, s3_bucket: str, use_s3: UseS3, theirs: bytes
) -> None:
    open_store(f"s3://{s3_bucket}").write("a", theirs)
    statuses: list[int] = []

    def fail_first(request: Request) -> Answer | None:
        if request.method == "PUT" and not statuses:
            statuses.append(500)
            return error_answer(500, "InternalError")
        return forward(request, s3_endpoint)

    with answering(fail_first) as url:
        use_s3(url)
        assert not open_store(f"s3://{s3_bucket}").write("a", b"mine!!", if_absent=True)
        assert open_store(f"s3://{s3_bucket}").read("a") == theirs


def test_a_commit_that_is_refused_at_once_does_not_read_what_stands(
    s3_endpoint: str, s3_bucket: str, use_s3: UseS3
) -> None:
    open_store(f"s3://{s3_bucket}").write("a", b"the same")
    methods: list[str] = []

    def note(request: Request) -> Answer:
        methods.append(request.method)
        return forward(request, s3_endpoint)

    with answering(note) as url:
        use_s3(url)
        assert not open_store(f"s3://{s3_bucket}").write("a", b"the same", if_absent=True)
    assert methods == ["PUT"]


def test_a_server_that_ignores_conditions_does_no_harm(
    s3_endpoint: str, s3_bucket: str, use_s3: UseS3
) -> None:
    with ignoring_conditions(s3_endpoint) as url:
        use_s3(url)
        store = open_store(f"s3://{s3_bucket}")
        assert store.write("a", b"the same bytes", if_absent=True)
        assert store.write("a", b"the same bytes", if_absent=True)
        assert store.read("a") == b"the same bytes"


def test_a_conflict_with_another_writer_is_tried_again_and_not_for_ever(use_s3: UseS3) -> None:
    n_conflicts = 2
    puts: list[str] = []

    def conflict(request: Request) -> Answer:
        puts.append(request.headers["If-None-Match"])
        if len(puts) <= n_conflicts:
            return error_answer(409, "ConditionalRequestConflict", "another request is under way")
        return Answer()

    with answering(conflict) as url:
        use_s3(url)
        assert open_store("s3://bucket").write("a", b"1", if_absent=True)
        assert puts == ["*"] * 3
        n_conflicts = 1000
        with pytest.raises(StorageError, match="ConditionalRequestConflict: another request"):
            open_store("s3://bucket").write("a", b"1", if_absent=True)
        assert len(puts) == 8


# Parts


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Parts as small as S3 allows; gives the threshold, in bytes."""
    monkeypatch.setattr(bucket_module, "MULTIPART_BYTES", 6 * 2**20)
    monkeypatch.setattr(bucket_module, "_PART_BYTES", 5 * 2**20)
    return 6 * 2**20


def _n_parts(bucket: str, key: str) -> int:
    etag = s3_client().head_object(Bucket=bucket, Key=key)["ETag"].strip('"')
    return int(etag.partition("-")[2] or 1)


def test_large_objects_go_up_in_parts(s3_bucket: str, tmp_path: Path, small_parts: int) -> None:
    store = open_store(f"s3://{s3_bucket}")
    data = bytes(range(256)) * (small_parts // 256) + b"end"
    file = tmp_path / "file"
    file.write_bytes(data)

    store.write("bytes", data)
    store.write_file("file", file)
    store.write("commit", data, if_absent=True)
    store.write("small", data[:-4])

    # A condition holds for an object as a whole, so a commit is one request.
    assert [_n_parts(s3_bucket, key) for key in ("bytes", "file", "commit", "small")] == [2, 2, 1, 1]
    assert store.read("bytes") == store.read("file") == store.read("commit") == data
    assert store.read_range("file", len(data) - 3, 3) == b"end"


def test_an_upload_that_fails_half_way_leaves_nothing(
    s3_endpoint: str, s3_bucket: str, use_s3: UseS3, small_parts: int, tmp_path: Path
) -> None:
    def fail_second_part(request: Request) -> Answer:
        if "partNumber=2" in request.path:
            return error_answer(403, "AccessDenied", "no more parts")
        return forward(request, s3_endpoint)

    file = tmp_path / "file"
    file.write_bytes(bytes(small_parts + 1))
    with answering(fail_second_part) as url:
        use_s3(url)
        store = open_store(f"s3://{s3_bucket}")
        for write in (lambda: store.write("a", bytes(small_parts + 1)), lambda: store.write_file("a", file)):
            with pytest.raises(StorageError, match=f"cannot write s3://{s3_bucket}/a: AccessDenied: no more"):
                write()
        assert not store.exists("a")
        assert "Uploads" not in s3_client().list_multipart_uploads(Bucket=s3_bucket)


def test_an_upload_that_the_server_does_not_name_is_unavailable(
    s3_endpoint: str, s3_bucket: str, use_s3: UseS3, small_parts: int
) -> None:
    def cut(request: Request) -> Answer:
        answer = forward(request, s3_endpoint)
        return replace(answer, cut_at=0) if request.path.endswith("?uploads") else answer

    with answering(cut) as url:
        use_s3(url)
        with pytest.raises(StorageUnavailable, match=f"cannot write s3://{s3_bucket}/a"):
            open_store(f"s3://{s3_bucket}").write("a", bytes(small_parts + 1))


@pytest.mark.parametrize("how", ["write", "commit", "file", "parts"])
def test_a_page_is_called_a_page_and_so_a_browser_shows_it(
    s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    store = open_store(f"s3://{s3_bucket}")
    page = b"<p>" + bytes(range(256)) * 8
    match how:
        case "file":
            (tmp_path / "any").write_bytes(page)
            store.write_file("index.html", tmp_path / "any")
        case "parts":
            monkeypatch.setattr(bucket_module, "MULTIPART_BYTES", 100)
            store.write("index.html", page)
        case _:
            store.write("index.html", page, if_absent=how == "commit")
    with urllib.request.urlopen(store.link("index.html", 60)) as answer:  # noqa: S310 (our own server)
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.read() == page
