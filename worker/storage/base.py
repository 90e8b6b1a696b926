"""The interface that every storage backend keeps; `tests/unit/test_storage.py` holds them to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class Store(Protocol):
    """Objects under one place. Keys are relative, `/`-separated, without `.` and `..` parts.

    Every method raises a StorageError (ObjectNotFound, StorageDenied, StorageFull) and nothing else.
    """

    @property
    def place(self) -> str:
        """The absolute path or URI that keys are relative to; `open_store(place)` gives this store."""
        ...

    def read(self, key: str) -> bytes:
        """The whole object. Raises ObjectNotFound."""
        ...

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Put an object: all of it or nothing is ever seen by a reader.

        With `if_absent`, an object that stands already is left alone and False is returned: somebody
        else committed it. Otherwise it is replaced. Returns True if `data` was written.
        """
        ...

    def exists(self, key: str) -> bool:
        """Whether an object stands under this very key."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """The keys that start with `prefix`, sorted."""
        ...
