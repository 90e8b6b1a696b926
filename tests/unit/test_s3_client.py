"""S3: links, settings, and the one client of a process."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.cluster import TIMEOUT_S
from tests.s3_server import Answer, Request, UseS3, answering
from worker.contract.errors import (
    SettingsError,
    StorageError,
    UsageError,
)
from worker.storage import open_store
from worker.storage.client import s3_client
from worker.storage.objects import read_object


def test_a_link_holds_for_as_long_as_was_asked(s3_bucket: str) -> None:
    store = open_store(f"s3://{s3_bucket}")
    link = store.link("a", 90)
    assert parse_qs(urlsplit(link).query)["X-Amz-Expires"] == ["90"]
    assert "a-secret" not in link
    for expires_s in (0, 7 * 24 * 3600 + 1):
        with pytest.raises(UsageError, match="604800 seconds"):
            store.link("a", expires_s)


@pytest.mark.parametrize(
    ("style", "start"),
    [
        ("auto", "https://s3.example.org/bucket/a?"),
        ("path", "https://s3.example.org/bucket/a?"),
        ("virtual", "https://bucket.s3.example.org/a?"),
    ],
)
def test_the_bucket_stands_where_the_addressing_style_says(
    use_s3: UseS3, monkeypatch: pytest.MonkeyPatch, style: str, start: str
) -> None:
    use_s3("https://s3.example.org")
    monkeypatch.setenv("DECONVOY_S3_ADDRESSING_STYLE", style)
    assert open_store("s3://bucket").link("a", 60).startswith(start)


@pytest.mark.parametrize(("checksums", "sent"), [("when_supported", True), ("when_required", False)])
def test_uploads_carry_a_checksum_where_the_setting_says_so(
    use_s3: UseS3, monkeypatch: pytest.MonkeyPatch, checksums: str, sent: bool
) -> None:
    headers: dict[str, str] = {}

    def note(request: Request) -> Answer:
        headers.update(request.headers)
        return Answer()

    with answering(note) as url:
        use_s3(url)
        monkeypatch.setenv("DECONVOY_S3_CHECKSUMS", checksums)
        open_store("s3://bucket").write("a", b"1")
    assert ("x-amz-checksum-crc32" in headers) is sent
    assert " deconvoy/" in headers["User-Agent"]


def test_a_wrong_checksum_is_found_where_the_setting_says_so(
    use_s3: UseS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(lambda _: Answer(body=b"0123", headers={"x-amz-checksum-crc32": "AAAAAA=="})) as url:
        use_s3(url)
        monkeypatch.setenv("DECONVOY_S3_MAX_ATTEMPTS", "2")
        with pytest.raises(StorageError, match="DECONVOY_S3_CHECKSUMS=when_required"):
            read_object("s3://bucket/a")
        monkeypatch.setenv("DECONVOY_S3_CHECKSUMS", "when_required")
        assert read_object("s3://bucket/a") == b"0123"


def test_threads_share_one_client_until_the_settings_change(
    use_s3: UseS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_s3("http://127.0.0.1:1")
    barrier = threading.Barrier(16)

    def client(_: int) -> int:
        barrier.wait()
        return id(s3_client())

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(client, range(16))) == {id(s3_client())}
    before = s3_client()
    monkeypatch.setenv("DECONVOY_S3_READ_TIMEOUT_S", "7")
    assert s3_client() is not before
    assert s3_client().meta.config.read_timeout == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DECONVOY_S3_ENDPOINT_URL", "minio:9000"),
        ("DECONVOY_S3_ENDPOINT_URL", "http://-"),
        ("DECONVOY_S3_ADDRESSING_STYLE", "host"),
        ("DECONVOY_S3_CHECKSUMS", "never"),
        ("DECONVOY_S3_VERIFY_TLS", "perhaps"),
        ("DECONVOY_S3_CA_BUNDLE", "/nothing.pem"),
        ("DECONVOY_S3_CONNECT_TIMEOUT_S", "0"),
        ("DECONVOY_S3_READ_TIMEOUT_S", "soon"),
        ("DECONVOY_S3_MAX_ATTEMPTS", "0"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(
    use_s3: UseS3, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    use_s3("http://127.0.0.1:1")
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        open_store("s3://bucket").read("a")


_FORK = """
import os, sys
from worker.storage import open_store
from worker.storage.client import s3_client
store = open_store(sys.argv[1])
store.write("parent", b"parent")
ours = s3_client()
child = os.fork()
if child == 0:
    assert s3_client() is not ours
    store.write("child", store.read("parent"))
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0 and s3_client() is ours
assert store.read("child") == b"parent"
"""


def test_a_forked_child_has_connections_of_its_own(s3_bucket: str) -> None:
    command = [sys.executable, "-c", _FORK, f"s3://{s3_bucket}/x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr


def test_boto3_is_imported_with_the_first_bucket() -> None:
    code = (
        "import sys, producer.cli, worker.storage.objects; from worker.storage import open_store; "
        "open_store('/tmp'); assert not {'boto3', 'botocore'} & set(sys.modules); "
        "open_store('s3://b'); assert 'boto3' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
