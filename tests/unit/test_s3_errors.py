"""One line for each thing that S3 can refuse or fail at: what happened, to what, and what to do."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from urllib3.exceptions import InsecureRequestWarning

from tests.s3_server import Answer, UseS3, answering, error_answer
from tests.tls import write_certificate
from worker.contract.errors import (
    ObjectNotFound,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from worker.storage import Store, open_store
from worker.storage.objects import list_objects

OPERATIONS: dict[str, Callable[[Store], object]] = {
    "read": lambda store: store.read("a"),
    "range": lambda store: store.read_range("a", 0, 5),
    "write": lambda store: store.write("a", b"1"),
    "commit": lambda store: store.write("a", b"1", if_absent=True),
    "file": lambda store: store.write_file("a", Path(__file__)),
    "exists": lambda store: store.exists("a"),
    "list": lambda store: list(store.list("")),
}


@pytest.fixture(autouse=True)
def two_attempts(short_pauses: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECONVOY_S3_MAX_ATTEMPTS", "2")


def said(error: StorageError) -> str:
    """The message, after a look at what no message may be."""
    text = str(error)
    assert "\n" not in text
    assert "a-secret" not in text
    assert len(text) < 500
    return text


@pytest.mark.parametrize("operation", ["read", "commit"])
@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (403, "AccessDenied", StorageDenied, "rights on the bucket"),
        (403, "InvalidAccessKeyId", StorageDenied, "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", StorageDenied, "AWS_SECRET_ACCESS_KEY"),
        (400, "ExpiredToken", StorageDenied, "credentials"),
        (403, "RequestTimeTooSkewed", StorageDenied, "set the clock"),
        (507, "XMinioStorageFull", StorageFull, "free some space"),
        (403, "QuotaExceeded", StorageFull, "raise the quota"),
        (503, "SlowDown", StorageUnavailable, "after 2 attempts"),
        (500, "InternalError", StorageUnavailable, "after 2 attempts"),
        (429, "TooManyRequests", StorageUnavailable, "try again"),
        (400, "AuthorizationHeaderMalformed", StorageError, "AWS_DEFAULT_REGION"),
        (400, "KeyTooLongError", StorageError, "answered 400 (KeyTooLongError: said so)"),
    ],
)
def test_a_refusal_says_what_to_do(
    use_s3: UseS3, operation: str, status: int, code: str, kind: type[StorageError], words: str
) -> None:
    with answering(lambda _: error_answer(status, code, "said so")) as url:
        use_s3(url)
        with pytest.raises(StorageError) as caught:
            OPERATIONS[operation](open_store("s3://bucket/x"))
    assert words in said(caught.value)
    assert code in said(caught.value) or code == "RequestTimeTooSkewed"
    assert type(caught.value) is kind
    assert said(caught.value).startswith("cannot ")
    assert "s3://bucket/x/a" in said(caught.value)
    assert caught.value.retryable is (kind is StorageUnavailable)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_is_denied_to_who_has_no_rights(use_s3: UseS3, operation: str) -> None:
    with answering(lambda _: error_answer(403, "AccessDenied")) as url:
        use_s3(url)
        with pytest.raises(StorageDenied, match=r"cannot .* s3://bucket/x/.*rights on the bucket") as caught:
            OPERATIONS[operation](open_store("s3://bucket/x"))
    said(caught.value)


@pytest.mark.parametrize("operation", sorted(set(OPERATIONS) - {"exists"}))
def test_a_bucket_that_does_not_exist_is_named(s3_environment: dict[str, str], operation: str) -> None:
    endpoint_url = s3_environment["DECONVOY_S3_ENDPOINT_URL"]
    with pytest.raises(StorageError) as caught:
        OPERATIONS[operation](open_store("s3://no-such-bucket/x"))
    assert type(caught.value) is StorageError
    assert "s3://no-such-bucket/x/" in said(caught.value)
    assert f"there is no such bucket at {endpoint_url}" in said(caught.value)
    assert "DECONVOY_S3_ENDPOINT_URL" in said(caught.value)


def test_a_bucket_that_does_not_exist_holds_nothing(s3_environment: dict[str, str]) -> None:
    assert not open_store("s3://no-such-bucket").exists("a")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_server_that_is_not_there_is_named(
    use_s3: UseS3, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    with answering(lambda _: None) as url:
        pass  # its port is free again
    use_s3(url.replace("http://", "http://user:a-secret@"))
    with pytest.raises(StorageUnavailable) as caught:
        OPERATIONS[operation](open_store("s3://bucket"))
    assert f"cannot connect to {url}, after all attempts" in said(caught.value)
    assert "DECONVOY_S3_ENDPOINT_URL" in said(caught.value)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_server_that_hangs_up_is_unavailable(use_s3: UseS3, operation: str) -> None:
    with answering(lambda _: None) as url:
        use_s3(url)
        with pytest.raises(StorageUnavailable, match=f"the connection was cut by {url}"):
            OPERATIONS[operation](open_store("s3://bucket"))


@pytest.mark.parametrize("status", [200, 302, 404, 405])
@pytest.mark.parametrize("operation", ["write", "list"])
def test_a_server_that_is_no_s3_is_found_out(use_s3: UseS3, operation: str, status: int) -> None:
    page = Answer(status, b"<!doctype html><p>It works!", {"Content-Type": "text/html"})
    with answering(lambda _: page) as url:
        use_s3(url)
        with pytest.raises(StorageError) as caught:
            OPERATIONS[operation](open_store("s3://bucket"))
    assert not isinstance(caught.value, ObjectNotFound)
    assert url in said(caught.value)
    assert "DECONVOY_S3_ENDPOINT_URL" in said(caught.value)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_without_credentials_it_says_which_are_needed(
    use_s3: UseS3, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    use_s3("http://127.0.0.1:1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageDenied, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"):
        OPERATIONS[operation](open_store("s3://bucket"))


def test_a_profile_that_does_not_exist_is_named(use_s3: UseS3, monkeypatch: pytest.MonkeyPatch) -> None:
    use_s3("http://127.0.0.1:1")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageDenied, match=r"\(nobody\) could not be found; correct the AWS settings"):
        open_store("s3://bucket").read("a")


def test_a_long_answer_is_cut_to_one_line(use_s3: UseS3) -> None:
    with answering(lambda _: error_answer(400, "Odd", "a\nb " * 1000)) as url:
        use_s3(url)
        with pytest.raises(StorageError, match="Odd: a b a b") as caught:
            next(list_objects("s3://bucket/x"))
    said(caught.value)


# TLS


def _certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for this machine that vouches for itself, and what a server needs to show it."""
    pem, key_pem = write_certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key_pem)
    return pem, context


def test_a_certificate_that_nobody_vouches_for(
    use_s3: UseS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pem, context = _certificate(tmp_path)
    with answering(lambda _: Answer(body=b"data"), context) as url:
        use_s3(url)
        # Given nothing: refused
        with pytest.raises(StorageError, match="DECONVOY_S3_CA_BUNDLE") as caught:
            open_store("s3://bucket").read("a")
        assert f"the certificate of {url} cannot be verified" in said(caught.value)
        # Given its authority: taken
        monkeypatch.setenv("DECONVOY_S3_CA_BUNDLE", str(pem))
        assert open_store("s3://bucket").read("a") == b"data"
        # Given the wish not to look: taken, with a warning
        monkeypatch.delenv("DECONVOY_S3_CA_BUNDLE")
        monkeypatch.setenv("DECONVOY_S3_VERIFY_TLS", "false")
        with pytest.warns(InsecureRequestWarning):
            assert open_store("s3://bucket").read("a") == b"data"


def test_a_server_that_speaks_no_tls(use_s3: UseS3) -> None:
    with answering(lambda _: Answer()) as url:
        use_s3(url.replace("http://", "https://"))
        with pytest.raises(StorageError, match="https://127") as caught:
            open_store("s3://bucket").read("a")
    assert "TLS" in said(caught.value)
