"""A store in memory: a dictionary under a lock, for tests that need no place to lie at."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from worker.contract.errors import ObjectNotFound, StorageError
from worker.storage.base import check_key, check_prefix, check_range


class MemoryStore:
    """Behaves as every store does (`tests/unit/test_storage.py`); ends with the process."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @property
    def place(self) -> str:
        return "memory:"

    def read(self, key: str) -> bytes:
        check_key(key)
        with self._lock:
            data = self._objects.get(key)
        if data is None:
            raise ObjectNotFound(f"there is no object {key!r} in {self.place}")
        return data

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        check_range(offset, length)
        data = self.read(key)[offset : offset + length]
        if len(data) < length:
            raise StorageError(f"{key!r} in {self.place} ends before byte {offset + length}")
        return data

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        check_key(key)
        with self._lock:
            if if_absent and key in self._objects:
                return False
            self._objects[key] = bytes(data)
            return True

    def write_file(self, key: str, path: Path) -> None:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from error
        self.write(key, data)

    def exists(self, key: str) -> bool:
        check_key(key)
        with self._lock:
            return key in self._objects

    def delete(self, key: str) -> None:
        check_key(key)
        with self._lock:
            self._objects.pop(key, None)

    def list(self, prefix: str) -> Iterator[str]:
        check_prefix(prefix)
        with self._lock:
            keys = sorted(key for key in self._objects if key.startswith(prefix))
        return iter(keys)

    def folders(self) -> Iterator[str]:
        with self._lock:
            return iter(sorted({key.partition("/")[0] for key in self._objects if "/" in key}))

    def link(self, key: str, expires_s: int) -> str:  # noqa: ARG002 (a file's link holds for ever)
        check_key(key)
        return f"{self.place}{key}"
