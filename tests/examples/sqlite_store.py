"""A whole storage, as CONTRIBUTING adds it: many objects in one file of SQLite, for one machine's workers."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from worker.contract.errors import ObjectNotFound, StorageError, UsageError
from worker.storage.base import Store, check_key, check_prefix, check_range, is_key

_BUSY_S = 60.0
_TABLE = "CREATE TABLE IF NOT EXISTS objects (key TEXT PRIMARY KEY, data BLOB NOT NULL)"
_ADD = "INSERT OR IGNORE INTO objects VALUES (?, ?) RETURNING 1"
_PUT = "INSERT OR REPLACE INTO objects VALUES (?, ?) RETURNING 1"


def open_sqlite(place: str) -> Store:
    """The store at `sqlite:///FILE.db`, or at a prefix in it. Raises UsageError for what is no such place."""
    file, suffix, prefix = place.removeprefix("sqlite://").partition(".db")
    prefix = prefix.strip("/")
    if not file.startswith("/") or not suffix or (prefix and not is_key(prefix)):
        raise UsageError(f"{place!r} cannot be a place: write sqlite:///FILE.db or sqlite:///FILE.db/prefix")
    return SqliteStore(Path(f"{file}.db"), prefix)


class SqliteStore:
    """Objects are rows of a table; that all of a write or nothing is seen, SQLite sees to."""

    def __init__(self, file: Path, prefix: str) -> None:
        self._file = file
        self._before = f"{prefix}/" if prefix else ""
        self.place = f"sqlite://{file}/{prefix}".rstrip("/")

    def read(self, key: str) -> bytes:
        """The row's bytes."""
        for (data,) in self._select("SELECT data FROM objects WHERE key = ?", key):
            return bytes(data)
        raise ObjectNotFound(f"there is no object {key!r} in {self.place}")

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """A part of the row's bytes, all of which are read."""
        check_range(offset, length)
        data = self.read(key)[offset : offset + length]
        if len(data) < length:
            raise StorageError(f"{key!r} in {self.place} ends before byte {offset + length}")
        return data

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """One statement, so that of several racers one adds the row."""
        return bool(self._select(_ADD if if_absent else _PUT, key, data))

    def write_file(self, key: str, path: Path) -> None:
        """The file goes through memory: SQLite takes a value whole."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}; write it again") from error
        self.write(key, data)

    def exists(self, key: str) -> bool:
        """Whether there is such a row."""
        return bool(self._select("SELECT 1 FROM objects WHERE key = ?", key))

    def delete(self, key: str) -> None:
        """Take the row away."""
        self._select("DELETE FROM objects WHERE key = ?", key)

    def list(self, prefix: str) -> Iterator[str]:
        """SQLite sorts by bytes of UTF-8, which is the order of texts."""
        check_prefix(prefix)
        start = self._before + prefix
        rows = self._do("SELECT key FROM objects WHERE substr(key, 1, ?) = ? ORDER BY key", len(start), start)
        return iter([key.removeprefix(self._before) for (key,) in rows])

    def folders(self) -> Iterator[str]:
        """Found by looking at all keys."""
        return iter(sorted({key.partition("/")[0] for key in self.list("") if "/" in key}))

    def link(self, key: str, expires_s: int) -> str:  # noqa: ARG002 (the link holds for ever)
        """The object itself, as a data: URI, which holds for ever."""
        return f"data:application/octet-stream;base64,{base64.b64encode(self.read(key)).decode()}"

    def _select(self, statement: str, key: str, *values: object) -> Sequence[Any]:
        check_key(key)
        return self._do(statement, self._before + key, *values)

    def _do(self, statement: str, *values: object) -> Sequence[Any]:
        """The rows of one statement; errors of SQLite and of the disk are translated here, and only here."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._file, _BUSY_S)) as database, database:
                database.execute(_TABLE)
                return database.execute(statement, values).fetchall()
        except (OSError, UnicodeError, sqlite3.Error) as error:
            raise StorageError(
                f"{self.place} cannot be used: {error}; check the file and its folder"
            ) from error
