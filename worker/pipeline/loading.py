"""Reading and decoding an image, in threads, ahead of the network."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from worker.contract.errors import ImageError, ImageQuarantined
from worker.contract.jobs import Job, ManifestEntry, Preprocessing
from worker.contract.records import Status
from worker.pipeline.decode import decode_image
from worker.pipeline.likeness import difference_hash
from worker.pipeline.preprocess import Geometry, preprocess
from worker.pipeline.source import read_image
from worker.pipeline.stages import Stages
from worker.pipeline.threads import N_WORKING, Crew, Pool

N_READERS = 16
"""A read from a store at the other end of a network is mostly waiting."""

MAX_RAW_BYTES = 256 * 2**20
"""No read begins while files of more bytes than this, read and not decoded yet, are held."""


@dataclass(frozen=True)
class Limits:
    """What an image may have at most and where it may lie; else it is a failed row, and is not read.

    An image with more pixels is read and not decoded. No roots: it may lie wherever the worker can read.
    """

    max_image_bytes: int
    max_image_pixels: int
    allowed_roots: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """An image that is ready for the network. `position` counts within the shard; `difference_hash` is None
    where the loader makes none.
    """

    position: int
    entry: ManifestEntry
    pixels_HWC: npt.NDArray[np.uint8]
    geometry: Geometry
    note: str | None
    source_sha256: str
    seconds: float
    difference_hash: int | None = None

    @property
    def height(self) -> int:
        """Of the preprocessed image, in pixels."""
        return self.geometry.height

    @property
    def width(self) -> int:
        """Of the preprocessed image, in pixels."""
        return self.geometry.width


@dataclass(frozen=True)
class Failed:
    """An image that cannot be used. `source_sha256` is known if its bytes could be read."""

    position: int
    entry: ManifestEntry
    error: ImageError
    source_sha256: str | None

    @property
    def status(self) -> Status:
        """What stands in the image's rows."""
        return "quarantined" if isinstance(self.error, ImageQuarantined) else "failed"


class Source(NamedTuple):
    """The bytes of an image, their hash in hex, and the seconds that it took to get them."""

    data: bytes
    sha256: str
    seconds: float


class _RawBytes:
    """Counts the bytes of files that were read and are not decoded yet.

    A read that has no room is set aside, and no thread waits for it: one that waits could not be ended.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_bytes = 0
        self._set_aside: deque[Callable[[], None]] = deque()

    def has_room(self, submit_again: Callable[[], None]) -> bool:
        """Whether a read may begin now; if not, `submit_again` is called when there is room."""
        with self._lock:
            if self._n_bytes <= MAX_RAW_BYTES:
                return True
            self._set_aside.append(submit_again)
            return False

    def add(self, n_bytes: int) -> None:
        with self._lock:
            self._n_bytes += n_bytes

    def remove(self, n_bytes: int) -> None:
        with self._lock:
            self._n_bytes -= n_bytes
            while self._set_aside and self._n_bytes <= MAX_RAW_BYTES:
                self._set_aside.popleft()()


@dataclass(frozen=True)
class Loader:
    """Loads images with two pools of threads; an ImageError becomes a `Failed`, all else is raised.

    With `hashed`, images get a difference hash.
    """

    readers: Pool[Any]
    decoders: Pool[Any]
    preprocessing: Preprocessing
    limits: Limits
    stages: Stages
    hashed: bool = False
    _raw: _RawBytes = field(default_factory=_RawBytes)

    @classmethod
    def of(cls, crew: Crew[Any], job: Job, limits: Limits, stages: Stages, *, hashed: bool = False) -> Loader:
        """A loader for the job's images, with pools of its own in `crew`."""
        readers, decoders = crew.pool("read", N_READERS), crew.pool("decode", N_WORKING)
        return cls(readers, decoders, job.request.preprocessing, limits, stages, hashed)

    def submit(self, position: int, entry: ManifestEntry) -> None:
        """Have an image loaded: a `Loaded` or a `Failed` will be a result of the crew."""
        self.readers.submit(lambda: self._read(position, entry))

    def read(self, entry: ManifestEntry) -> Source:
        """Read an image, in the calling thread. Raises ImageError."""
        with self.stages.measure("read") as timer:
            data = read_image(entry.image, self.limits.max_image_bytes, self.limits.allowed_roots)
            sha256 = hashlib.sha256(data).hexdigest()
        return Source(data, sha256, timer.seconds)

    def _read(self, position: int, entry: ManifestEntry) -> Failed | None:
        if not self._raw.has_room(lambda: self.submit(position, entry)):
            return None
        try:
            source = self.read(entry)
        except ImageError as error:
            return Failed(position, entry, error, None)
        self._raw.add(len(source.data))
        self.decoders.submit(lambda: self._decode(position, entry, source))
        return None

    def _decode(self, position: int, entry: ManifestEntry, source: Source) -> Loaded | Failed:
        try:
            with self.stages.measure("decode") as timer:
                photograph = decode_image(source.data, self.limits.max_image_pixels)
                preprocessed = preprocess(photograph.rgb, self.preprocessing)
                difference = difference_hash(preprocessed.pixels_HWC) if self.hashed else None
        except ImageError as error:
            return Failed(position, entry, error, source.sha256)
        finally:
            self._raw.remove(len(source.data))
        return Loaded(
            position,
            entry,
            preprocessed.pixels_HWC,
            preprocessed.geometry,
            photograph.note,
            source.sha256,
            source.seconds + timer.seconds,
            difference,
        )
