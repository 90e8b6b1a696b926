"""Reading and decoding ahead of the network, in threads, in the manifest's order."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.contract.errors import ImageError
from worker.contract.jobs import ManifestEntry, Preprocessing
from worker.pipeline.decode import decode_image
from worker.pipeline.preprocess import Geometry, preprocess
from worker.pipeline.source import read_image
from worker.pipeline.stages import Stages


@dataclass(frozen=True)
class Limits:
    """What an image may have at most; more is a failed row, and is neither read nor decoded."""

    max_image_bytes: int
    max_image_pixels: int


@dataclass(frozen=True)
class Loaded:
    """An image that is ready for the network. `position` counts within the shard."""

    position: int
    entry: ManifestEntry
    pixels_HWC: npt.NDArray[np.uint8]
    geometry: Geometry
    note: str | None
    source_sha256: str
    seconds: float

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


@dataclass(frozen=True)
class _Source:
    data: bytes
    sha256: str
    seconds: float


@dataclass(frozen=True)
class Loader:
    """Loads images with two pools of threads; an ImageError becomes a `Failed`, all else is raised."""

    readers: Executor
    decoders: Executor
    preprocessing: Preprocessing
    limits: Limits
    stages: Stages

    def load(self, entries: Sequence[ManifestEntry], n_ahead: int) -> Iterator[Future[Loaded | Failed]]:
        """All images in order. Those whose turn has not come, at most `n_ahead`, are loaded meanwhile."""
        ahead: deque[Future[Loaded | Failed]] = deque()
        for position, entry in enumerate(entries):
            reading = self.readers.submit(self._read, entry)
            ahead.append(self.decoders.submit(self._decode, position, entry, reading))
            if len(ahead) > n_ahead:
                yield ahead.popleft()
        while ahead:
            yield ahead.popleft()

    def _read(self, entry: ManifestEntry) -> _Source:
        with self.stages.measure("read") as timer:
            data = read_image(entry.image, self.limits.max_image_bytes)
            sha256 = hashlib.sha256(data).hexdigest()
        return _Source(data, sha256, timer.seconds)

    def _decode(self, position: int, entry: ManifestEntry, reading: Future[_Source]) -> Loaded | Failed:
        sha256 = None
        try:
            # Both pools take images in the same order, so this waits for no image behind its own.
            source = reading.result()
            sha256 = source.sha256
            with self.stages.measure("decode") as timer:
                photograph = decode_image(source.data, self.limits.max_image_pixels)
                preprocessed = preprocess(photograph.rgb, self.preprocessing)
        except ImageError as error:
            return Failed(position, entry, error, sha256)
        return Loaded(
            position,
            entry,
            preprocessed.pixels_HWC,
            preprocessed.geometry,
            photograph.note,
            sha256,
            source.seconds + timer.seconds,
        )
