"""The floor under the pipeline: the same bytes read, decoded, resized, encoded and written by plain threads.

Pillow and boto3 alone: no queues, no rows, no hashes, no record, and the pictures are drawn beforehand.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.photographs import photographs

WIDTH, HEIGHT = 500, 375
"""As large as photographs in ImageNet are, on average."""
_QUALITY = 98
_ROOM = 1.3
_INPUT_QUALITY = 90
_RESIZE_PER_CROP = 256 / 224


def jpegs(n: int) -> list[bytes]:
    """Photographs of about 110 kB each, all different: pieces of those that scikit-image ships."""
    scenes = []
    for path in photographs():
        with Image.open(path) as image:
            rgb = image.convert("RGB")
        # A comment would be kept in every copy.
        rgb.info.clear()
        larger = _ROOM * max(WIDTH / rgb.width, HEIGHT / rgb.height)
        scenes.append(rgb.resize((round(rgb.width * larger), round(rgb.height * larger))))
    random = np.random.default_rng(0)
    return [_piece(scenes[number % len(scenes)], random) for number in range(n)]


def _piece(scene: Image.Image, random: np.random.Generator) -> bytes:
    left = int(random.integers(scene.width - WIDTH + 1))
    top = int(random.integers(scene.height - HEIGHT + 1))
    buffer = io.BytesIO()
    scene.crop((left, top, left + WIDTH, top + HEIGHT)).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


@dataclass(frozen=True)
class Floor:
    """Image `number` gets the pictures `drawn[number % len(drawn)]` (uint8 HWC)."""

    client: Any
    bucket: str
    sources: Sequence[str]
    size_px: int
    drawn: Sequence[Sequence[npt.NDArray[np.uint8]]]
    n_threads: int

    def to_files(self, place: str) -> None:
        """Each picture an object below `place`, named by the image's number and its own."""

        def work(number: int) -> None:
            for name, data in self.encoded(number):
                self.client.put_object(Bucket=self.bucket, Key=f"{place}/{name}", Body=data)

        self._each(work)

    def to_tar(self, key: str) -> None:
        """All pictures in one archive, gathered in a local file."""
        with tempfile.NamedTemporaryFile() as spool:
            with tarfile.open(fileobj=spool, mode="w") as archive:
                appending = threading.Lock()

                def work(number: int) -> None:
                    objects = self.encoded(number)
                    with appending:
                        for name, data in objects:
                            member = tarfile.TarInfo(name)
                            member.size = len(data)
                            archive.addfile(member, io.BytesIO(data))

                self._each(work)
            spool.flush()
            self.client.upload_file(spool.name, self.bucket, key)

    def _each(self, work: Any) -> None:
        with ThreadPoolExecutor(self.n_threads) as threads:
            for _ in threads.map(work, range(len(self.sources))):
                pass

    def encoded(self, number: int) -> list[tuple[str, bytes]]:
        data = self.client.get_object(Bucket=self.bucket, Key=self.sources[number])["Body"].read()
        with Image.open(io.BytesIO(data)) as image:
            rgb = image.convert("RGB")
        shorter = round(self.size_px * _RESIZE_PER_CROP)
        width, height = int(shorter * rgb.width / rgb.height), shorter
        left, top = round((width - self.size_px) / 2), round((height - self.size_px) / 2)
        seen = rgb.resize((width, height), Image.Resampling.BILINEAR).crop(
            (left, top, left + self.size_px, top + self.size_px)
        )
        pictures = [Image.fromarray(drawn_HWC) for drawn_HWC in self.drawn[number % len(self.drawn)]]
        return [
            *((f"{number}/{n}.png", _saved(one, "PNG", compress_level=1)) for n, one in enumerate(pictures)),
            (f"{number}/input.jpg", _saved(seen, "JPEG", quality=_INPUT_QUALITY)),
        ]


def _saved(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
