"""Encoding and storing an image's pictures, in threads, and the rows that say what became of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from worker.contract import keys
from worker.contract.jobs import PictureFormat
from worker.contract.records import Row
from worker.contract.specs import LayerSpec
from worker.pipeline.compute import Computed
from worker.pipeline.engine import Reconstruction
from worker.pipeline.layouts import Layout
from worker.pipeline.loading import Failed, Loaded
from worker.pipeline.picture import Picture, encode, encode_input
from worker.pipeline.stages import Stages
from worker.pipeline.threads import Pool

MAX_IMAGES = 32
MAX_BYTES = 256 * 2**20
"""Reconstructions that wait to be stored hold no more memory than this, beside those of one image."""


@dataclass(frozen=True)
class Encoded:
    """An image's pictures as named objects: one for each of `rows`, then the preprocessed image.

    `rows` do not know yet where the objects stand; `seconds` is the work up to here.
    """

    position: int
    rows: list[Row]
    objects: list[tuple[str, bytes]]
    seconds: float


@dataclass(frozen=True)
class Written:
    """An image that is done with: `position` within the shard, and its rows."""

    position: int
    rows: list[Row]


@dataclass(frozen=True)
class Encoder:
    """Turns an image's reconstructions, and the image as the network saw it, into pictures."""

    shard: int
    picture_format: PictureFormat
    pixel_std_C: tuple[float, float, float]
    stages: Stages

    def encode(self, computed: Computed[list[Reconstruction]]) -> Encoded:
        """Encode everything of one image."""
        image = computed.image
        with self.stages.measure("encode") as timer:
            pictures = [
                encode(reconstruction.pixels_CHW.numpy(), self.pixel_std_C, self.picture_format)
                for reconstruction in computed.result
            ]
            photograph = encode_input(image.pixels_HWC)
        rows = [
            _ok_row(image, reconstruction, picture, self.shard)
            for reconstruction, picture in zip(computed.result, pictures, strict=True)
        ]
        names = [
            keys.recon_key(reconstruction.spec, image.entry.key, self.picture_format, reconstruction.unit)
            for reconstruction in computed.result
        ]
        objects = [(name, picture.data) for name, picture in zip(names, pictures, strict=True)]
        return Encoded(
            image.position,
            rows,
            [*objects, (keys.input_key(image.entry.key), photograph)],
            image.seconds + computed.seconds + timer.seconds,
        )


class Backlog:
    """Images that are being encoded and stored: bounded, so that a slow store slows the network, not memory.

    Images are encoded side by side, and stored in the order in which they came.
    """

    def __init__(self, encoders: Pool[Any], writers: Pool[Any], encoder: Encoder, layout: Layout) -> None:
        self._encoders = encoders
        self._writers = writers
        self._encoder = encoder
        self._layout = layout
        self._encoded = _InOrder(self._submit_write)
        self._n_put = 0
        self._bytes_of: dict[int, int] = {}
        self._most_images = 0
        self._most_bytes = 0

    def __len__(self) -> int:
        return len(self._bytes_of)

    def has_room_for(self, computed: Computed[list[Reconstruction]]) -> bool:
        """Whether one more may wait. One image always may, however large."""
        n_bytes = sum(self._bytes_of.values()) + _n_bytes(computed.result)
        return not self._bytes_of or (len(self._bytes_of) < MAX_IMAGES and n_bytes <= MAX_BYTES)

    def put(self, computed: Computed[list[Reconstruction]]) -> None:
        """Have an image encoded and stored: a `Written` will be a result of the crew."""
        self._bytes_of[computed.image.position] = _n_bytes(computed.result)
        self._most_images = max(self._most_images, len(self._bytes_of))
        self._most_bytes = max(self._most_bytes, sum(self._bytes_of.values()))
        number = self._n_put
        self._n_put += 1
        self._encoders.submit(lambda: self._encoded.put(number, self._encoder.encode(computed)))

    def remove(self, written: Written) -> None:
        """The image is done with."""
        del self._bytes_of[written.position]

    def resources(self) -> dict[str, int]:
        """The most that has waited up to now: see `records.RESOURCES_METADATA`."""
        return {
            "most_waiting_to_write": self._most_images,
            "most_bytes_waiting_to_write": self._most_bytes,
        }

    def _submit_write(self, encoded: Encoded) -> None:
        self._writers.submit(lambda: self._write(encoded))

    def _write(self, encoded: Encoded) -> Written:
        with self._encoder.stages.measure("write") as timer:
            *places, input_place = self._layout.put(encoded.objects)
        rows = [
            replace(
                row,
                key=place.key,
                offset=place.offset,
                length=place.length,
                seconds=encoded.seconds + timer.seconds,
                input_key=input_place.key,
                input_offset=input_place.offset,
                input_length=input_place.length,
            )
            for row, place in zip(encoded.rows, places, strict=True)
        ]
        return Written(encoded.position, rows)


def _n_bytes(reconstructions: Sequence[Reconstruction]) -> int:
    """Memory that they hold."""
    return sum(4 * reconstruction.pixels_CHW.numel() for reconstruction in reconstructions)


class _InOrder:
    """Passes on what comes numbered, in the order of the numbers from 0, whichever thread is first."""

    def __init__(self, pass_on: Callable[[Encoded], None]) -> None:
        self._pass_on = pass_on
        self._lock = threading.Lock()
        self._early: dict[int, Encoded] = {}
        self._next = 0

    def put(self, number: int, encoded: Encoded) -> None:
        with self._lock:
            self._early[number] = encoded
            while self._next in self._early:
                self._pass_on(self._early.pop(self._next))
                self._next += 1


def failed_rows(failed: Failed, specs: Sequence[LayerSpec], shard: int) -> list[Row]:
    """A row for each spec of an image that cannot be used."""
    return [
        Row(
            image=failed.entry.image,
            image_key=failed.entry.key,
            status=failed.status,
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


def _ok_row(image: Loaded, reconstruction: Reconstruction, picture: Picture, shard: int) -> Row:
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
        source_box=geometry.source_box(window),
        sha256=picture.sha256,
        scale=picture.scale,
        nonfinite=reconstruction.nonfinite,
        width=geometry.width,
        height=geometry.height,
        source_width=geometry.source_width,
        source_height=geometry.source_height,
        source_sha256=image.source_sha256,
        shard=shard,
    )
