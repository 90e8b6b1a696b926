"""The interface that every storage backend keeps; `tests/unit/test_storage.py` holds them to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from worker.contract.errors import StorageError


class Store(Protocol):
    """Objects under one place. Keys are relative, `/`-separated, without `.` and `..` parts.

    Every method raises a StorageError (ObjectNotFound, StorageDenied, StorageFull, StorageUnavailable), or
    a UsageError if the store's settings or an argument cannot be used, and nothing else.
    """

    @property
    def place(self) -> str:
        """The absolute path or URI that keys are relative to; `open_store(place)` gives this store."""
        ...

    def read(self, key: str) -> bytes:
        """The whole object. Raises ObjectNotFound."""
        ...

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """Exactly the `length` bytes, at least one, from byte `offset` on.

        Raises ObjectNotFound; StorageError where the object ends earlier.
        """
        ...

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Put an object: all of it or nothing is ever seen by a reader.

        With `if_absent`, an object that stands already is left alone and False is returned: somebody
        else committed it. Otherwise it is replaced. Returns True if `data` was written.
        """
        ...

    def write_file(self, key: str, path: Path) -> None:
        """Put the bytes of a local file, which stays; an object that stands is replaced."""
        ...

    def exists(self, key: str) -> bool:
        """Whether an object stands under this very key."""
        ...

    def delete(self, key: str) -> None:
        """Take an object away; one that does not stand is no error."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """The keys that start with `prefix`, sorted."""
        ...

    def folders(self) -> Iterator[str]:
        """The different first parts of all keys that have several, sorted; what is below is not looked at."""
        ...

    def link(self, key: str, expires_s: int) -> str:
        """An URL that gives the object to a browser, for at least `expires_s` seconds.

        Whether the object stands is not looked at.
        """
        ...


def is_key(key: str) -> bool:
    """Whether `key` is names between single slashes, none of them `.` or `..`, without backslash and NUL."""
    return not any(part in ("", ".", "..") for part in key.split("/")) and "\\" not in key and "\0" not in key


def check_key(key: str) -> None:
    """Raise StorageError unless `is_key(key)`: another key could lead out of a store's place."""
    if not is_key(key):
        raise StorageError(f"key {key!r} is not allowed: use names between single slashes, no ..")


def check_prefix(prefix: str) -> None:
    """Raise StorageError unless keys can start with `prefix`; its last name may be any beginning."""
    folder, slash, _ = prefix.rpartition("/")
    if slash:
        check_key(folder)


def check_range(offset: int, length: int) -> None:
    """Raise StorageError unless there can be `length` bytes from `offset` on."""
    if offset < 0 or length < 1:
        raise StorageError(f"{length} bytes from byte {offset} on cannot be read: that is no range")
