"""One bucket: requests, their retries and their errors. Keys are whole and may be any that S3 allows."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError, ResponseStreamingError

from worker.contract.errors import ObjectTooLarge, StorageError, StorageUnavailable, UsageError
from worker.contract.formats import PICTURE_FORMATS
from worker.contract.settings import load_settings
from worker.storage.client import s3_client
from worker.storage.retries import pause_s
from worker.storage.s3_errors import CUT, FOREIGN, code_of, retries_of, status_of, storage_error

MULTIPART_BYTES = 32 * 2**20
"""Objects with more bytes go up in parts."""

_PART_BYTES = 16 * 2**20
_PART_THREADS = 4
_CONFLICT_ATTEMPTS = 5
_LONGEST_LINK_S = 7 * 24 * 3600
_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".parquet": "application/vnd.apache.parquet",
    ".tar": "application/x-tar",
    **{f".{name}": known.media_type for name, known in PICTURE_FORMATS.items() if known.media_type},
}
"""Not from `mimetypes`, which says what the machine at hand has set up."""

_Body = TypeVar("_Body")


class Bucket:
    """The objects of one bucket. Threads may share it, and so may processes that fork.

    Every method raises StorageDenied, StorageUnavailable after all attempts, or StorageError; the first
    one also SettingsError if the S3 settings cannot be used.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._owner: tuple[int, Any] | None = None

    def get(self, key: str, max_bytes: int | None = None) -> bytes:
        """The whole object. Raises ObjectNotFound; ObjectTooLarge before its body is read."""

        def check(answer: dict[str, Any]) -> None:
            n_bytes = answer.get("ContentLength")
            if max_bytes is None:
                return
            if n_bytes is None:
                raise StorageError(f"{self.uri(key)} is not read: the server does not say how long it is")
            if n_bytes > max_bytes:
                raise ObjectTooLarge(f"{self.uri(key)} has {n_bytes} bytes, more than {max_bytes}")

        return self._download(key, check)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """The `length` bytes, at least one, from `offset` on. Raises ObjectNotFound."""
        span = f"bytes {offset}-{offset + length - 1}/"

        def check(answer: dict[str, Any]) -> None:
            # An object that ends earlier, or a server that sends all of it, must not pass for the range.
            given = answer.get("ContentRange", "")
            if not given.startswith(span):
                raise StorageError(f"{self.uri(key)} does not give {span[:-1]}, but {given or 'all it has'}")

        return self._download(key, check, Range=span[:-1].replace(" ", "="))

    def put(self, key: str, data: bytes) -> None:
        """Write the object, in parts if it is large; what stands there is replaced."""
        with self._translated("write", key):
            if len(data) > MULTIPART_BYTES:
                self._in_parts(self._client.upload_fileobj, io.BytesIO(data), key)
            else:
                self._client.put_object(Bucket=self._name, Key=key, Body=data, ContentType=_content_type(key))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write the object in one piece unless one stands there: whether `data` is what stands by us.

        A server that knows no conditions replaces what stands.
        """
        with self._translated("write", key):
            tried_before = False
            attempt = 0
            while True:
                attempt += 1
                try:
                    self._client.put_object(
                        Bucket=self._name,
                        Key=key,
                        Body=data,
                        ContentType=_content_type(key),
                        IfNoneMatch="*",
                    )
                except ClientError as error:
                    tried_before |= retries_of(error) > 0
                    if status_of(error) == 412:
                        # An attempt of ours may have been done and its answer lost: the next meets itself.
                        return tried_before and self._holds(key, data)
                    if code_of(error) != "ConditionalRequestConflict" or attempt == _CONFLICT_ATTEMPTS:
                        raise
                else:
                    return True
                time.sleep(pause_s(attempt))

    def put_file(self, key: str, path: Path) -> None:
        """Write a local file's bytes, in parts if it is large."""
        with self._translated("write", key):
            try:
                self._in_parts(self._client.upload_file, str(path), key)
            except FOREIGN:  # some are OSErrors too
                raise
            except OSError as error:
                raise StorageError(f"cannot read {path}: {error.strerror or error}") from error

    def exists(self, key: str) -> bool:
        """Whether the object stands. A bucket that does not exist holds none."""
        with self._translated("look for", key):
            try:
                self._client.head_object(Bucket=self._name, Key=key)
            except ClientError as error:
                if status_of(error) == 404:
                    return False
                raise
            return True

    def delete(self, key: str) -> None:
        """Take the object away; to S3 it is no error if it does not stand."""
        with self._translated("delete", key):
            self._client.delete_object(Bucket=self._name, Key=key)

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys that start with `prefix`, in the order of their UTF-8 bytes, page by page."""
        for page in self._pages(Prefix=prefix):
            for found in page.get("Contents", ()):
                yield found["Key"]

    def common_prefixes(self, prefix: str) -> Iterator[str]:
        """What keys that start with `prefix` begin with, up to the next slash, each once."""
        for page in self._pages(Prefix=prefix, Delimiter="/"):
            for found in page.get("CommonPrefixes", ()):
                yield found["Prefix"]

    def link(self, key: str, expires_s: int) -> str:
        """An URL that gives the object to whoever has it, for `expires_s` seconds. Needs no request.

        Raises UsageError for more than the 7 days that S3 allows, or less than a second.
        """
        if not 1 <= expires_s <= _LONGEST_LINK_S:
            raise UsageError(f"a link holds for 1 to {_LONGEST_LINK_S} seconds, not for {expires_s}")
        with self._translated("link to", key):
            url: str = self._client.generate_presigned_url(
                "get_object", Params={"Bucket": self._name, "Key": key}, ExpiresIn=expires_s
            )
            return url

    def uri(self, key: str) -> str:
        """How the object is named outside of its bucket."""
        return f"s3://{self._name}/{key}"

    @property
    def _client(self) -> Any:
        if self._owner is None or self._owner[0] != os.getpid():
            self._owner = os.getpid(), s3_client()
        return self._owner[1]

    def _download(self, key: str, check: Callable[[dict[str, Any]], None], **parameters: str) -> bytes:
        """The body, asked for again if it breaks off; `check` sees each answer before its body is read."""

        def ask() -> dict[str, Any]:
            answer: dict[str, Any] = self._client.get_object(Bucket=self._name, Key=key, **parameters)
            return answer

        def body_of(answer: dict[str, Any]) -> bytes:
            with closing(answer["Body"]) as body:
                check(answer)
                return bytes(body.read())

        with self._translated("read", key):
            return self._whole(ask, body_of)

    def _pages(self, **parameters: str) -> Iterator[dict[str, Any]]:
        """The pages of a listing."""
        page = self._page(parameters)
        yield page
        while page["IsTruncated"]:
            page = self._page({**parameters, "ContinuationToken": page["NextContinuationToken"]})
            yield page

    def _page(self, parameters: dict[str, str]) -> dict[str, Any]:
        """One page of a listing."""

        def ask() -> dict[str, Any]:
            page: dict[str, Any] = self._client.list_objects_v2(Bucket=self._name, **parameters)
            return page

        def checked(page: dict[str, Any]) -> dict[str, Any]:
            # An answer that lost all of its body would else pass for a bucket without objects.
            if "IsTruncated" not in page:
                raise ResponseStreamingError(error="no listing came")
            return page

        with self._translated("list", parameters["Prefix"]):
            return self._whole(ask, checked)

    def _whole(self, ask: Callable[[], dict[str, Any]], body_of: Callable[[dict[str, Any]], _Body]) -> _Body:
        """The body of an answer; while it breaks off, another is asked for, until all attempts are spent."""
        attempt = 0
        while True:
            attempt += 1
            answer = ask()
            try:
                return body_of(answer)
            except CUT:
                if attempt >= load_settings().s3_max_attempts:
                    raise
            time.sleep(pause_s(attempt))

    def _in_parts(self, upload: Callable[..., None], source: str | io.BytesIO, key: str) -> None:
        config = TransferConfig(
            multipart_threshold=MULTIPART_BYTES,
            multipart_chunksize=_PART_BYTES,
            max_concurrency=_PART_THREADS,
        )
        try:
            upload(source, self._name, key, Config=config, ExtraArgs={"ContentType": _content_type(key)})
        except KeyError as error:
            raise StorageUnavailable(
                f"cannot write {self.uri(key)}: the server did not name the upload; try again"
            ) from error

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            return self.get(key, max_bytes=len(data)) == data
        except ObjectTooLarge:
            return False

    @contextmanager
    def _translated(self, verb: str, key: str) -> Iterator[None]:
        client = self._client
        try:
            yield
        except UnicodeEncodeError as error:
            raise StorageError(f"key {key!r} cannot be written in UTF-8: {error.reason}") from error
        except FOREIGN as error:
            uri = self.uri(key)
            raise storage_error(error, f"cannot {verb} {uri}", uri, client.meta.endpoint_url) from error


def _content_type(key: str) -> str:
    """What a browser is told that the object is: a page is shown then, and not saved as a file."""
    return _CONTENT_TYPES.get(PurePosixPath(key).suffix, "application/octet-stream")
