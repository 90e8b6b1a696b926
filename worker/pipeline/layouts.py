"""Where an image's encoded pictures go: a file each, or all of a shard into one tar archive."""

from __future__ import annotations

import errno
import hashlib
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from worker.contract import jobs, keys
from worker.contract.errors import StorageError, StorageFull
from worker.contract.records import Row
from worker.storage import Store

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_END_OF_ARCHIVE = bytes(2 * tarfile.BLOCKSIZE)


class Place(NamedTuple):
    """Where a picture stands: the object `key`, or `length` bytes of it from `offset` on.

    `key` is None while the object that will hold the bytes has no name yet.
    """

    key: str | None
    offset: int | None = None
    length: int | None = None


class Layout(Protocol):
    """Takes the pictures of a shard, image by image, in the order in which images left the network."""

    @property
    def n_threads(self) -> int:
        """How many threads may `put` at the same time."""
        ...

    def put(self, objects: Sequence[tuple[str, bytes]]) -> list[Place]:
        """Store the named objects of one image; where each of them stands. Raises StorageError."""
        ...

    def finish(self, rows: list[Row]) -> list[Row]:
        """Store what is left, after the last `put`; `rows` with the places that are known only now."""
        ...


@contextmanager
def open_layout(layout: jobs.Layout, store: Store, shard: int) -> Iterator[Layout]:
    """The layout of a job, for one of its shards. Raises StorageError where there is no disk for it."""
    if layout == "files":
        yield FilesLayout(store)
        return
    with _translated("make a temporary file"):
        spool = tempfile.NamedTemporaryFile(prefix="deconvoy-", suffix=".tar", buffering=0)  # noqa: SIM115 (closed below)
    # As a context it is removed at the end, however the end comes.
    with spool as file:
        yield TarLayout(store, shard, file)


class FilesLayout:
    """Each picture is an object of its own, under its own name."""

    n_threads = 16
    """Enough for a store at the other end of a network: a write there is mostly waiting."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, objects: Sequence[tuple[str, bytes]]) -> list[Place]:
        """Write the objects, one after the other."""
        for key, data in objects:
            self._store.write(key, data)
        return [Place(key) for key, _ in objects]

    def finish(self, rows: list[Row]) -> list[Row]:
        """Nothing is left to do."""
        return rows


class TarLayout:
    """All pictures of a shard are one tar archive, gathered in the local file `spool` until it is whole.

    The same pictures give the same bytes: members stand in the order in which they come, without times
    or owners. The archive's key has its hash in it.
    """

    n_threads = 1
    """An archive grows at one end."""

    def __init__(self, store: Store, shard: int, spool: IO[bytes]) -> None:
        self._store = store
        self._shard = shard
        self._spool = spool
        self._sha256 = hashlib.sha256()
        self._n_bytes = 0

    def put(self, objects: Sequence[tuple[str, bytes]]) -> list[Place]:
        """Append the objects to the archive. Raises StorageFull where the local disk is."""
        places = []
        for name, data in objects:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            self._append(member.tobuf())
            places.append(Place(None, self._n_bytes, len(data)))
            self._append(data)
            self._append(bytes(-len(data) % tarfile.BLOCKSIZE))
        return places

    def finish(self, rows: list[Row]) -> list[Row]:
        """Put the archive into the store, unless nothing is in it, and name it in the rows."""
        if not self._n_bytes:
            return rows
        self._append(_END_OF_ARCHIVE)
        key = keys.tar_key(self._shard, self._sha256.hexdigest())
        self._store.write_file(key, Path(self._spool.name))
        return [replace(row, key=key, input_key=key) if row.status == "ok" else row for row in rows]

    def _append(self, data: bytes) -> None:
        self._sha256.update(data)
        self._n_bytes += len(data)
        rest = memoryview(data)
        with _translated(f"write to {self._spool.name}"):
            # Unbuffered, so that a full disk shows here and not once more when the file is closed.
            while rest:
                rest = rest[self._spool.write(rest) :]


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """An error of the local disk, as one of ours."""
    try:
        yield
    except OSError as error:
        text = f"cannot {what}, where a shard's tar is gathered: {error.strerror or error}"
        if error.errno in _FULL:
            raise StorageFull(f"{text}; free some space there, or set TMPDIR to a larger disk") from error
        raise StorageError(f"{text}; set TMPDIR to a folder that this worker can write to") from error
