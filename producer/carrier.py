"""Carrying pictures from a job's store into a folder, each verified by its hash. Threads may share it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

from producer.pictures import Picture, read_span, spans
from worker.contract.errors import (
    ObjectNotFound,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from worker.storage import Store


class Outcome(NamedTuple):
    """What became of one picture; `message` says why it failed."""

    picture: Picture
    how: Literal["fetched", "kept", "failed"]
    message: str = ""


class Carrier:
    """Brings pictures of `source` into `target`."""

    def __init__(self, source: Store, target: Store) -> None:
        self._source = source
        self._target = target

    def carry(self, pictures: Sequence[Picture]) -> list[Outcome]:
        """Bring the pictures, in any order; what stands already with the right hash is not read again.

        Raises what would meet all others too: StorageUnavailable, and StorageFull or StorageDenied of
        the target.
        """
        outcomes = []
        wanted = []
        for picture in pictures:
            outcome = self._look(picture)
            if outcome is None:
                wanted.append(picture)
            else:
                outcomes.append(outcome)
        for span in spans(wanted):
            outcomes += map(self._bring, span, self._read(span))
        return outcomes

    def _look(self, picture: Picture) -> Outcome | None:
        """Whether the picture stands already; None: it has to be brought."""
        try:
            data = self._target.read(picture.name)
        except ObjectNotFound:
            return None
        except StorageDenied:
            raise
        except StorageError as error:
            # A name that leads out of the target, or that its file system cannot take.
            return Outcome(picture, "failed", str(error))
        return Outcome(picture, "kept") if _fits(picture, data) else None

    def _read(self, span: Sequence[Picture]) -> Sequence[bytes | None]:
        """Their bytes, in one request; None where each has to be read alone."""
        if len(span) > 1:
            try:
                return read_span(self._source, span)
            except StorageUnavailable:
                raise
            except StorageError:
                # One of them may be at fault: alone, each gets its own answer.
                pass
        return [None] * len(span)

    def _bring(self, picture: Picture, data: bytes | None) -> Outcome:
        try:
            if data is None:
                data = picture.read(self._source)
            if not _fits(picture, data):
                data = picture.read(self._source)
        except StorageUnavailable:
            raise
        except StorageError as error:
            return Outcome(picture, "failed", str(error))
        if not _fits(picture, data):
            return Outcome(picture, "failed", f"{picture.key} does not hold the bytes that the index names")
        try:
            self._target.write(picture.name, data)
        except (StorageFull, StorageDenied):
            raise
        except StorageError as error:
            return Outcome(picture, "failed", str(error))
        return Outcome(picture, "fetched")


def _fits(picture: Picture, data: bytes) -> bool:
    """Whether these are the picture's bytes; where no hash is known, any are."""
    return picture.sha256 is None or hashlib.sha256(data).hexdigest() == picture.sha256
