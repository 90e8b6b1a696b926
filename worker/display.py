"""How a reconstruction is drawn: for the store, for an atlas and for a notebook in the same way.

Why so: docs/mathematics.md, "Weights and preprocessing".
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

_ZERO = 128
_HALF_RANGE = 127
_SHARE_WITHIN_SCALE = 0.995
"""By its single largest value a whole map's picture would be drawn almost grey: few values are extreme."""


def display(
    pixels_CHW: npt.NDArray[np.float32], pixel_std_C: Sequence[float]
) -> tuple[npt.NDArray[np.uint8], float]:
    """Draw a reconstruction: drawn_HWC (uint8, RGB), and the scale it is drawn with.

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


def as_png(drawn_HWC: npt.NDArray[np.uint8]) -> bytes:
    """A drawn picture (H, W, 3) as the bytes of a PNG file, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(drawn_HWC).save(buffer, "PNG")
    return buffer.getvalue()
