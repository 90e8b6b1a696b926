"""A bucket as a store: the objects whose keys start with one prefix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from worker.storage.base import check_key, check_prefix, check_range, is_key
from worker.storage.bucket import Bucket


class S3Store:
    """The objects of a bucket below a prefix; the bucket must exist.

    Two writers at one key do no harm: each object is seen whole, and of those that write with
    `if_absent` one wins where the server knows conditional writes. Where it does not, the last one stays.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = Bucket(bucket)
        self._prefix = f"{prefix}/" if prefix else ""

    @property
    def place(self) -> str:
        """`s3://bucket/prefix`, without a slash at its end."""
        return self._bucket.uri(self._prefix).rstrip("/")

    def read(self, key: str) -> bytes:
        """The object's bytes. Raises ObjectNotFound."""
        return self._bucket.get(self._path(key))

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """The `length` bytes of the object from byte `offset` on, in one request. Raises ObjectNotFound."""
        path = self._path(key)
        check_range(offset, length)
        return self._bucket.get_range(path, offset, length)

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Put an object: in one request with `if_absent`, else in parts if it is large."""
        path = self._path(key)
        if if_absent:
            return self._bucket.put_if_absent(path, data)
        self._bucket.put(path, data)
        return True

    def write_file(self, key: str, path: Path) -> None:
        """Put a local file's bytes, in parts if it is large."""
        self._bucket.put_file(self._path(key), path)

    def exists(self, key: str) -> bool:
        """Whether there is such an object. Raises StorageDenied where that cannot be seen."""
        return self._bucket.exists(self._path(key))

    def delete(self, key: str) -> None:
        """Take an object away, if it stands."""
        self._bucket.delete(self._path(key))

    def list(self, prefix: str) -> Iterator[str]:
        """The keys that start with `prefix`, sorted, page by page.

        Keys that no method of ours accepts, such as the `folder/` that some tools leave, are passed over.
        """
        check_prefix(prefix)
        keys = (key.removeprefix(self._prefix) for key in self._bucket.keys(self._prefix + prefix))
        return filter(is_key, keys)

    def folders(self) -> Iterator[str]:
        """The first parts of the keys, in one request for each thousand of them."""
        for prefix in self._bucket.common_prefixes(self._prefix):
            name = prefix.removeprefix(self._prefix).rstrip("/")
            if is_key(name):
                yield name

    def link(self, key: str, expires_s: int) -> str:
        """A presigned URL; it is made here, without a request, and does not say whether the object stands."""
        return self._bucket.link(self._path(key), expires_s)

    def _path(self, key: str) -> str:
        check_key(key)
        return self._prefix + key
