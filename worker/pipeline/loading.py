"""Reading and decoding an image, in threads, ahead of the network."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.contract.errors import ImageError
from worker.contract.jobs import ManifestEntry, Preprocessing
from worker.pipeline.decode import decode_image
from worker.pipeline.preprocess import Geometry, preprocess
from worker.pipeline.source import read_image
from worker.pipeline.stages import Stages
from worker.pipeline.threads import Pool


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

    readers: Pool[Any]
    decoders: Pool[Any]
    preprocessing: Preprocessing
    limits: Limits
    stages: Stages

    def submit(self, position: int, entry: ManifestEntry) -> None:
        """Have an image loaded: a `Loaded` or a `Failed` will be a result of the crew."""
        self.readers.submit(lambda: self._read(position, entry))

    def _read(self, position: int, entry: ManifestEntry) -> Failed | None:
        try:
            with self.stages.measure("read") as timer:
                data = read_image(entry.image, self.limits.max_image_bytes)
                sha256 = hashlib.sha256(data).hexdigest()
        except ImageError as error:
            return Failed(position, entry, error, None)
        source = _Source(data, sha256, timer.seconds)
        self.decoders.submit(lambda: self._decode(position, entry, source))
        return None

    def _decode(self, position: int, entry: ManifestEntry, source: _Source) -> Loaded | Failed:
        try:
            with self.stages.measure("decode") as timer:
                photograph = decode_image(source.data, self.limits.max_image_pixels)
                preprocessed = preprocess(photograph.rgb, self.preprocessing)
        except ImageError as error:
            return Failed(position, entry, error, source.sha256)
        return Loaded(
            position,
            entry,
            preprocessed.pixels_HWC,
            preprocessed.geometry,
            photograph.note,
            source.sha256,
            source.seconds + timer.seconds,
        )
