"""How a reconstruction is stored, and how the preprocessed image is kept beside it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.contract.formats import PICTURE_FORMATS
from worker.contract.jobs import PictureFormat
from worker.display import display

_INPUT_QUALITY = 90


@dataclass(frozen=True)
class Picture:
    """An encoded reconstruction. `scale`: see `worker.display`; `sha256` is that of `data`, in hex."""

    data: bytes
    sha256: str
    scale: float


def encode(
    pixels_CHW: npt.NDArray[np.float32], pixel_std_C: Sequence[float], picture_format: PictureFormat
) -> Picture:
    """Encode a reconstruction (float32, network-input units), without loss.

    What the file holds, the format says: what `display` draws, or the float32 CHW values themselves.
    """
    drawn_HWC, scale = display(pixels_CHW, pixel_std_C)
    is_drawn = PICTURE_FORMATS[picture_format].holds == "picture"
    data = ENCODERS[picture_format](drawn_HWC if is_drawn else pixels_CHW)
    return Picture(data, hashlib.sha256(data).hexdigest(), scale)


def _png(drawn_HWC: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(drawn_HWC).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _webp(drawn_HWC: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(drawn_HWC).save(buffer, "WEBP", lossless=True, method=0, quality=0)
    return buffer.getvalue()


def _npy(pixels_CHW: npt.NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(pixels_CHW, dtype=np.float32), allow_pickle=False)
    return buffer.getvalue()


ENCODERS: Final[Mapping[str, Callable[[npt.NDArray[Any]], bytes]]] = {
    "png": _png,
    "webp": _webp,
    "npy": _npy,
}
"""By the names of `PICTURE_FORMATS`; each is given what its format holds."""


def encode_input(pixels_HWC: npt.NDArray[np.uint8]) -> bytes:
    """The preprocessed image as JPEG, for people to look at."""
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, "JPEG", quality=_INPUT_QUALITY)
    return buffer.getvalue()
