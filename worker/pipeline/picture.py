"""How a reconstruction is drawn and stored, and how the preprocessed image is kept beside it."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.contract.formats import PICTURE_FORMATS
from worker.contract.jobs import PictureFormat

_ZERO = 128
_HALF_RANGE = 127
_INPUT_QUALITY = 90
_SHARE_WITHIN_SCALE = 0.995
"""By its single largest value a whole map's picture would be drawn almost grey: few values are extreme."""


@dataclass(frozen=True)
class Picture:
    """An encoded reconstruction. `scale`: see `display`; `sha256` is that of `data`, in hex."""

    data: bytes
    sha256: str
    scale: float


def display(
    pixels_CHW: npt.NDArray[np.float32], pixel_std_C: Sequence[float]
) -> tuple[npt.NDArray[np.uint8], float]:
    """Draw a reconstruction: uint8 RGB HWC, and the scale it is drawn with.

    Each channel times `pixel_std_C` is in units of 0-255 pixels. `scale` is the absolute value there that
    99.5 % of the values other than zero do not exceed; it is drawn as full black (1) or white (255), and
    so is what lies beyond. Zero is mid-grey (128) always. NaN and infinities are drawn as zero and do not
    count for the scale; a picture of zeros alone is flat grey with scale 0.
    """
    # float64: a value near float32's limit must not become infinite by the multiplication.
    values_CHW = pixels_CHW * np.asarray(pixel_std_C, dtype=np.float64)[:, None, None]
    finite_CHW = np.isfinite(values_CHW)
    if not finite_CHW.all():
        values_CHW[~finite_CHW] = 0.0
    scale = _scale(values_CHW)
    if scale > 0:
        values_CHW /= scale
        np.clip(values_CHW, -1.0, 1.0, out=values_CHW)
    values_CHW *= _HALF_RANGE
    values_CHW += _ZERO
    np.rint(values_CHW, out=values_CHW)
    drawn_HWC = np.empty((*values_CHW.shape[1:], 3), dtype=np.uint8)
    for channel in range(3):
        drawn_HWC[:, :, channel] = values_CHW[channel]
    return drawn_HWC, scale


def _scale(values_CHW: npt.NDArray[np.float64]) -> float:
    """What `_SHARE_WITHIN_SCALE` of the absolute values other than zero do not exceed: one of them, or 0."""
    sizes = np.abs(values_CHW).ravel()
    n = int(np.count_nonzero(sizes))
    if n == 0:
        return 0.0
    # In order the zeros come first. What np.quantile does, a third of its time: it is asked for each picture.
    position = len(sizes) - n + math.ceil((n - 1) * _SHARE_WITHIN_SCALE)
    sizes.partition(position)
    return float(sizes[position])


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
