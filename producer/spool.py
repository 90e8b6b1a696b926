"""The manifest of a job between its sources and its store: a temporary file, so that no list is ever held."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from typing import BinaryIO

from worker.contract import keys
from worker.contract.errors import StorageFull
from worker.contract.jobs import manifest_line
from worker.storage import Store

_MAX_WRITERS = 16
"""Slices that are written at a time, and the most that are held: in a bucket each takes a round trip."""

_MAX_HELD_IMAGES = 200_000


class Spool:
    """The lines of all slices, in order, in `file`."""

    def __init__(self, file: BinaryIO) -> None:
        self.n_images = 0
        self._file = file

    def passing(self, images: Iterable[str]) -> Iterator[str]:
        """The images as they come, each written down on the way. Raises StorageFull."""
        for image in images:
            line = manifest_line(image, keys.image_key(image))
            try:
                self._file.write(line)
            except OSError as error:
                raise cannot_keep("the list of images", error) from error
            self.n_images += 1
            yield image
        try:
            self._file.flush()
        except OSError as error:
            raise cannot_keep("the list of images", error) from error

    def write_slices(self, store: Store, shard_size: int) -> None:
        """Put the slices of `shard_size` images into the store, several at a time. Raises StorageError."""
        n_writers = max(1, min(_MAX_WRITERS, _MAX_HELD_IMAGES // shard_size))
        pending: deque[Future[bool]] = deque()
        with ThreadPoolExecutor(n_writers) as writers:
            for shard, data in enumerate(self._slices(shard_size)):
                if len(pending) == n_writers:
                    pending.popleft().result()
                pending.append(writers.submit(store.write, keys.manifest_key(shard), data))
            for write in pending:
                write.result()

    def _slices(self, shard_size: int) -> Iterator[bytes]:
        self._file.seek(0)
        while data := b"".join(islice(self._file, shard_size)):
            yield data


@contextmanager
def open_spool() -> Iterator[Spool]:
    """An empty spool; its file has no name and is gone at the end. Raises StorageFull."""
    try:
        file = tempfile.TemporaryFile(prefix="deconvoy-")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise cannot_keep("the list of images", error) from error
    try:
        yield Spool(file)
    finally:
        # What could not be written is tried again by close; that it failed was said already.
        with suppress(OSError):
            file.close()


def cannot_keep(what: str, error: OSError) -> StorageFull:
    """That `what` does not go into the folder for temporary files."""
    return StorageFull(
        f"{what} cannot be kept among the temporary files: {error.strerror}; "
        "free some space, or set TMPDIR to another folder"
    )
