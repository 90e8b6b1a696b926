"""From a photograph to the network's input size, and the way back: which part of it a window shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.contract.architectures import MIN_IMAGE_SIZE
from worker.contract.errors import ImageTooLarge, ImageTooSmall
from worker.contract.jobs import Preprocessing
from worker.pipeline.engine import Window

MAX_SIDE = 16383
"""Pixels on a side that a WebP can hold; no image is resized to more, whatever the format."""

_RESIZE_PER_CROP = 256 / 224


@dataclass(frozen=True)
class Geometry:
    """Where a preprocessed image of `width` x `height` lies in its source, in pixels.

    `box` is (left, top, right, bottom) in the source as it is seen upright, and `source_width` x
    `source_height` the source's own size, in its pixels.
    """

    width: int
    height: int
    box: tuple[float, float, float, float]
    source_width: int
    source_height: int

    def source_box(self, window: Window) -> tuple[float, float, float, float]:
        """A window of the preprocessed image in the source: left, top, right, bottom, in its pixels."""
        box_left, box_top, box_right, box_bottom = self.box
        x_scale = (box_right - box_left) / self.width
        y_scale = (box_bottom - box_top) / self.height
        # Rounding may step past the edge by 1e-12; a reader that cuts the box out must not.
        return (
            max(box_left + window.left * x_scale, 0.0),
            max(box_top + window.top * y_scale, 0.0),
            min(box_left + window.right * x_scale, float(self.source_width)),
            min(box_top + window.bottom * y_scale, float(self.source_height)),
        )


@dataclass(frozen=True)
class Preprocessed:
    """The image as the network gets it, before normalisation: uint8 RGB, and where it comes from."""

    pixels_HWC: npt.NDArray[np.uint8]
    geometry: Geometry


def preprocess(rgb: Image.Image, preprocessing: Preprocessing) -> Preprocessed:
    """Resize `rgb` (mode RGB) bilinearly with antialiasing, as `preprocessing` says.

    `crop` is torchvision's transform for VGG (`VGG16_Weights.IMAGENET1K_V1`), to the bit. Raises
    ImageTooSmall where a side comes out under 32 pixels, ImageTooLarge where one is over `MAX_SIDE`.
    """
    match preprocessing.resize:
        case "crop":
            return _cropped(rgb, preprocessing.size_px)
        case "fit":
            longer = max(rgb.size)
            width = round(preprocessing.size_px * rgb.width / longer)
            height = round(preprocessing.size_px * rgb.height / longer)
        case "native":
            width, height = rgb.size
    if min(width, height) < MIN_IMAGE_SIZE:
        raise ImageTooSmall(
            f"the image of {rgb.width} x {rgb.height} pixels comes out as {width} x {height} with "
            f"{preprocessing.resize}, less than {MIN_IMAGE_SIZE} on a side; use crop, or a larger size"
        )
    box = (0.0, 0.0, float(rgb.width), float(rgb.height))
    return Preprocessed(_resized(rgb, width, height), Geometry(width, height, box, *rgb.size))


def _cropped(rgb: Image.Image, size_px: int) -> Preprocessed:
    shorter = round(size_px * _RESIZE_PER_CROP)
    # torchvision cuts the longer side's fraction off, and rounds the crop's place half to even.
    longer = int(shorter * max(rgb.size) / min(rgb.size))
    width, height = (shorter, longer) if rgb.width <= rgb.height else (longer, shorter)
    left = round((width - size_px) / 2)
    top = round((height - size_px) / 2)
    # Pillow could resize the crop alone, but takes its place as float32: one pixel in 200 then differs.
    pixels_HWC = _resized(rgb, width, height)[top : top + size_px, left : left + size_px]
    box = (
        left * rgb.width / width,
        top * rgb.height / height,
        (left + size_px) * rgb.width / width,
        (top + size_px) * rgb.height / height,
    )
    return Preprocessed(np.ascontiguousarray(pixels_HWC), Geometry(size_px, size_px, box, *rgb.size))


def _resized(rgb: Image.Image, width: int, height: int) -> npt.NDArray[np.uint8]:
    if max(width, height) > MAX_SIDE:
        raise ImageTooLarge(
            f"the image of {rgb.width} x {rgb.height} pixels would be resized to {width} x {height}, "
            f"more than {MAX_SIDE} on a side; cut it into pieces, or use fit"
        )
    return np.array(rgb.resize((width, height), Image.Resampling.BILINEAR), dtype=np.uint8)
