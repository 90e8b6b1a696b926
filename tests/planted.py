"""A data set of small photographs, and things planted in it that an audit must find.

The pictures are patches of the photographs that scikit-image ships, cut side by side, so that no two of them
show the same. Two clean sets are every second patch each: drawn from the same photographs.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from tests.photographs import photographs

SIDE_PX = 48
NAMES = ("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png")
MORE_NAMES = ("ihc.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg")


def patches() -> dict[str, Image.Image]:
    """All patches by name; nearly two thousand."""
    folder = photographs()[0].parent
    found = {}
    for name in (*NAMES, *MORE_NAMES):
        photograph = Image.open(folder / name).convert("RGB")
        for top in range(0, photograph.height - SIDE_PX + 1, SIDE_PX):
            for left in range(0, photograph.width - SIDE_PX + 1, SIDE_PX):
                box = (left, top, left + SIDE_PX, top + SIDE_PX)
                found[f"{Path(name).stem}-{top:04d}-{left:04d}.png"] = photograph.crop(box)
    return found


def halves(of: Mapping[str, Image.Image]) -> tuple[dict[str, Image.Image], dict[str, Image.Image]]:
    """Two sets of the same kind: the patches like a chessboard's white and black squares."""
    sets: tuple[dict[str, Image.Image], dict[str, Image.Image]] = ({}, {})
    for name, patch in of.items():
        row, column = (int(part) // SIDE_PX for part in Path(name).stem.split("-")[1:])
        sets[(row + column) % 2][name] = patch
    return sets


def textured(of: Mapping[str, Image.Image], least_std: float = 8.0) -> dict[str, Image.Image]:
    """Those that show something: flat ones, of a sky or a black border, are near-duplicates in truth."""
    return {
        name: patch for name, patch in of.items() if np.asarray(patch).std(axis=(0, 1)).min() >= least_std
    }


def drifted(of: Mapping[str, Image.Image]) -> dict[str, Image.Image]:
    """The same patches as another camera would give them: blurred, and pale."""
    return {
        name: ImageEnhance.Contrast(patch.filter(ImageFilter.GaussianBlur(1.5))).enhance(0.5)
        for name, patch in of.items()
    }


def save(folder: Path, images: Mapping[str, Image.Image]) -> list[Path]:
    """Write the images as PNG; returns their paths, sorted."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        image.save(folder / name)
    return sorted(folder / name for name in images)


def jpeg(image: Image.Image, quality: int) -> bytes:
    """The image as a JPEG file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def noise(seed: int) -> Image.Image:
    """What no photograph looks like: each channel of each pixel full or none, by chance."""
    values = np.random.default_rng(seed).integers(0, 2, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    return Image.fromarray(values * np.uint8(255))


def names(paths: Iterable[Path]) -> list[str]:
    """The paths as a job names its images."""
    return [str(path) for path in paths]
