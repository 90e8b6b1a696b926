"""Encoding and writing an image's pictures, in threads, and the rows that say what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from worker.contract import keys
from worker.contract.jobs import PictureFormat
from worker.contract.records import Row
from worker.contract.specs import LayerSpec
from worker.pipeline.compute import Computed
from worker.pipeline.engine import Reconstruction
from worker.pipeline.loading import Failed, Loaded
from worker.pipeline.picture import Picture, encode, encode_input
from worker.pipeline.stages import Stages
from worker.pipeline.threads import Pool
from worker.storage import Store

MAX_IMAGES = 32
MAX_BYTES = 256 * 2**20
"""Reconstructions that wait to be written hold no more memory than this, beside those of one image."""


@dataclass(frozen=True)
class Written:
    """An image that is done with: `position` within the shard, and its rows."""

    position: int
    rows: list[Row]


@dataclass(frozen=True)
class Writer:
    """Writes an image's pictures, and the image as the network saw it, into the store."""

    store: Store
    shard: int
    picture_format: PictureFormat
    pixel_std_C: tuple[float, float, float]
    stages: Stages

    def write(self, computed: Computed) -> Written:
        """Encode and write everything of one image. Raises StorageError."""
        image = computed.image
        seconds = image.seconds + computed.seconds
        stored: list[tuple[str, Picture]] = []
        for reconstruction in computed.reconstructions:
            key = keys.recon_key(
                reconstruction.spec, image.entry.key, self.picture_format, reconstruction.unit
            )
            with self.stages.measure("encode") as encoding:
                pixels_CHW = reconstruction.pixels_CHW.numpy()
                picture = encode(pixels_CHW, self.pixel_std_C, self.picture_format)
            seconds += encoding.seconds + self._write(key, picture.data)
            stored.append((key, picture))
        with self.stages.measure("encode") as encoding:
            photograph = encode_input(image.pixels_HWC)
        seconds += encoding.seconds + self._write(keys.input_key(image.entry.key), photograph)
        rows = [
            _ok_row(image, reconstruction, key, picture, self.shard, seconds)
            for reconstruction, (key, picture) in zip(computed.reconstructions, stored, strict=True)
        ]
        return Written(image.position, rows)

    def _write(self, key: str, data: bytes) -> float:
        with self.stages.measure("write") as timer:
            self.store.write(key, data)
        return timer.seconds


class Backlog:
    """Images that are being written: bounded, so that a slow store slows the network down, not memory."""

    def __init__(self, pool: Pool[Any], writer: Writer) -> None:
        self._pool = pool
        self._writer = writer
        self._bytes_of: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._bytes_of)

    def has_room_for(self, computed: Computed) -> bool:
        """Whether one more may wait. One image always may, however large."""
        n_bytes = sum(self._bytes_of.values()) + computed.n_bytes
        return not self._bytes_of or (len(self._bytes_of) < MAX_IMAGES and n_bytes <= MAX_BYTES)

    def put(self, computed: Computed) -> None:
        """Have an image written: a `Written` will be a result of the crew."""
        self._bytes_of[computed.image.position] = computed.n_bytes
        self._pool.submit(lambda: self._writer.write(computed))

    def remove(self, written: Written) -> None:
        """The image is done with."""
        del self._bytes_of[written.position]


def failed_rows(failed: Failed, specs: Sequence[LayerSpec], shard: int) -> list[Row]:
    """A row for each spec of an image that cannot be used."""
    return [
        Row(
            image=failed.entry.image,
            image_key=failed.entry.key,
            status="failed",
            error=type(failed.error).__name__,
            message=str(failed.error),
            spec=str(spec),
            layer=spec.layer.name,
            selection=spec.selection,
            source_sha256=failed.source_sha256,
            shard=shard,
        )
        for spec in specs
    ]


def _ok_row(
    image: Loaded,
    reconstruction: Reconstruction,
    key: str,
    picture: Picture,
    shard: int,
    seconds: float,
) -> Row:
    spec, window, geometry = reconstruction.spec, reconstruction.window, image.geometry
    return Row(
        image=image.entry.image,
        image_key=image.entry.key,
        status="ok",
        message=image.note,
        spec=str(spec),
        layer=spec.layer.name,
        selection=spec.selection,
        unit=reconstruction.unit,
        y=reconstruction.y,
        x=reconstruction.x,
        activation=reconstruction.activation,
        left=window.left,
        top=window.top,
        right=window.right,
        bottom=window.bottom,
        source_box=geometry.source_box(window.left, window.top, window.right, window.bottom),
        key=key,
        sha256=picture.sha256,
        scale=picture.scale,
        nonfinite=reconstruction.nonfinite,
        width=geometry.width,
        height=geometry.height,
        source_width=geometry.source_width,
        source_height=geometry.source_height,
        source_sha256=image.source_sha256,
        shard=shard,
        seconds=seconds,
    )
