"""A unit's pictures in an atlas: cells of one size in a row, one for each of its winners."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.contract.architectures import Layer, layers_of
from worker.display import display
from worker.pipeline.engine import Window

MAX_CELL_SIDE = 112
"""Pixels: larger windows are shrunk to it."""

_GREY = 128
_PATCH_QUALITY = 80

Signal = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Field:
    """What the places of a layer see, where no edge cuts it: squares of `side` pixels, `stride` apart.

    That of place (0, 0) begins at `first`, in rows and in columns.
    """

    first: int
    side: int
    stride: int

    @classmethod
    def of(cls, layer: Layer, model: str) -> Field:
        """The field of a layer of `model`."""
        begin, end = 0, 1
        for below in reversed(layers_of(model)[: layer.index + 1]):
            if below.kind == "pool":
                begin, end = 2 * begin, 2 * end
            elif below.kind == "conv":
                begin, end = begin - 1, end + 1
        return cls(begin, end - begin, layer.stride)

    @property
    def cell_side(self) -> int:
        """Pixels on a side of the cell that a window is drawn in."""
        return min(self.side, MAX_CELL_SIDE)

    def signal_cell(self, place: tuple[int, int], window: Window, pixels_CHW: Signal) -> Signal:
        """A reconstruction in its cell, CHW: where the image's edge cuts the window off, it is zero.

        So are NaN and infinities, which shrinking would spread.
        """
        whole_CHW = np.zeros((3, self.side, self.side), np.float32)
        whole_CHW[:, *self._inside(place, window)] = np.where(np.isfinite(pixels_CHW), pixels_CHW, 0)
        if self.side == self.cell_side:
            return whole_CHW
        return np.stack([np.asarray(self._shrunk(Image.fromarray(channel_HW))) for channel_HW in whole_CHW])

    def patch_cell(self, place: tuple[int, int], window: Window, pixels_HWC: Pixels) -> Pixels:
        """What a window of an image, `pixels_HWC`, saw, in its cell, HWC: grey outside the image."""
        whole_HWC = np.full((self.side, self.side, 3), _GREY, np.uint8)
        seen_HWC = pixels_HWC[window.top : window.bottom, window.left : window.right]
        whole_HWC[self._inside(place, window)] = seen_HWC
        return (
            whole_HWC if self.side == self.cell_side else np.asarray(self._shrunk(Image.fromarray(whole_HWC)))
        )

    def _inside(self, place: tuple[int, int], window: Window) -> tuple[slice, slice]:
        """The rows and columns of the whole field that `window` is."""
        top, left = (self.first + index * self.stride for index in place)
        return slice(window.top - top, window.bottom - top), slice(window.left - left, window.right - left)

    def _shrunk(self, picture: Image.Image) -> Image.Image:
        return picture.resize((self.cell_side, self.cell_side), Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class Cells:
    """One winner's: the reconstruction, its two controls (network-input units), and what the window saw."""

    reconstruction_CHW: Signal
    other_unit_CHW: Signal
    random_weights_CHW: Signal
    patch_HWC: Pixels

    @classmethod
    def empty(cls, side: int) -> Cells:
        """Those of a winner that there is nothing of: `side` pixels wide and high."""
        nothing_CHW = np.zeros((3, side, side), np.float32)
        return cls(nothing_CHW, nothing_CHW, nothing_CHW, np.full((side, side, 3), _GREY, np.uint8))


@dataclass(frozen=True)
class Sheets:
    """A unit's pictures as WebP, by what they show (see `keys.atlas_key`); `scale` of the reconstructions."""

    data: Mapping[str, bytes]
    scale: float


def draw_sheets(cells: Sequence[Cells], pixel_std_C: Sequence[float]) -> Sheets:
    """Draw a unit's winners side by side, all with one scale, which is chosen as for a single picture.

    `controls` has two rows, other unit and random weights, each with a scale of its own.
    """
    reconstructions_HWC, scale = display(
        np.concatenate([cell.reconstruction_CHW for cell in cells], axis=2), pixel_std_C
    )
    others_HWC, _ = display(np.concatenate([cell.other_unit_CHW for cell in cells], axis=2), pixel_std_C)
    random_HWC, _ = display(np.concatenate([cell.random_weights_CHW for cell in cells], axis=2), pixel_std_C)
    patches_HWC = np.concatenate([cell.patch_HWC for cell in cells], axis=1)
    data = {
        "reconstructions": _lossless(reconstructions_HWC),
        "controls": _lossless(np.concatenate([others_HWC, random_HWC])),
        "patches": _webp(patches_HWC, quality=_PATCH_QUALITY),
    }
    return Sheets(data, scale)


def _lossless(pixels_HWC: Pixels) -> bytes:
    return _webp(pixels_HWC, lossless=True, method=0, quality=0)


def _webp(pixels_HWC: Pixels, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, "WEBP", **options)
    return buffer.getvalue()
