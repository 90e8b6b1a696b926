"""From an image's bytes to an upright RGB picture of 8 bits a channel. Knows no files and no network.

Pillow decodes, from an allow-list of formats. Colour profiles are not applied, as in torchvision.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from PIL.Image import Transpose

from worker.contract.errors import ImageError, ImageTooLarge, ImageUnreadable, one_line

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
"""The filter that `_silence_pillow` sets, as `warnings.filters` holds it."""

_MOST_PAGES_COUNTED = 1000
_MOST_SCANS = 100
"""Encoders make about ten. Each goes over all pixels, and a scan without news costs a few bytes."""

_JPEG_SEGMENT = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])(..)?", re.DOTALL)
_START_OF_SCAN, _END_OF_IMAGE = b"\xda", b"\xd9"

_PNG_DEPTH_AT = 24
_TIFF_BITS_PER_SAMPLE = 258
_TIFF_PHOTOMETRIC = 262
_WHITE_IS_ZERO = 0

_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""What makes a picture upright, by its EXIF orientation."""


@dataclass(frozen=True)
class Photograph:
    """A decoded image: `rgb` upright (turned as its EXIF says), in mode RGB.

    `note` is what a reader of the index should know about it, such as that only one frame was taken.
    """

    rgb: Image.Image
    note: str | None = None


def decode_image(data: bytes, max_pixels: int) -> Photograph:
    """Decode `data`. Transparency lies over white; of an animation the first frame is taken.

    Raises ImageTooLarge from the header alone, before pixels are decoded, and ImageUnreadable.
    """
    # Pillow's own limit lies elsewhere than ours, is global, and is checked in places that we don't see.
    Image.MAX_IMAGE_PIXELS = max_pixels
    _silence_pillow()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise _too_large(max_pixels)
            _check_scans(image, data)
            frames = _frames(image)
            image.load()
            turn, exif = _turn(image)
            rgb = _rgb(image, data)
            notes = [note for note in (frames, exif) if note]
            return Photograph(rgb if turn is None else rgb.transpose(turn), "; ".join(notes) or None)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        names = ", ".join(FORMATS)
        raise ImageUnreadable(
            f"the bytes are no image of a known format ({names}), or of a rare kind; save it as PNG or JPEG"
        ) from error
    except Image.DecompressionBombError as error:
        raise _too_large(max_pixels) from error
    except Exception as error:
        # Bytes that are broken in the right way raise nearly anything out of Pillow's decoders.
        raise ImageUnreadable(f"the image is cut short or broken: {one_line(error)}") from error


def _silence_pillow() -> None:
    # A warning is no error of the image, but would be where the host makes errors of them. Not
    # catch_warnings, which is not safe among threads.
    if next(iter(warnings.filters), None) != _QUIET:
        warnings.filterwarnings("ignore", module=_QUIET[3].pattern)


def _too_large(max_pixels: int) -> ImageTooLarge:
    return ImageTooLarge(
        f"the image has more than the {max_pixels} pixels allowed; "
        "raise DECONVOY_MAX_IMAGE_PIXELS if that is meant"
    )


def _check_scans(image: ImageFile.ImageFile, data: bytes) -> None:
    """Refuse a progressive JPEG that would be decoded for hours."""
    if "progressive" not in image.info:
        return
    n_scans, position = 0, 0
    while (segment := _JPEG_SEGMENT.search(data, position)) and segment[1] != _END_OF_IMAGE:
        n_scans += segment[1] == _START_OF_SCAN
        if n_scans > _MOST_SCANS:
            raise ImageUnreadable(f"the JPEG has more than {_MOST_SCANS} scans; save it anew")
        position = segment.end(1)
        # The start of the image alone has no length, and no content.
        if segment[1] != b"\xd8" and segment[2]:
            position += int.from_bytes(segment[2])


def _frames(image: ImageFile.ImageFile) -> str | None:
    """What to say of an image of several frames or pages. Leaves the image at the first."""
    n_frames = _n_pages(image) if image.format == "TIFF" else getattr(image, "n_frames", 1)
    image.seek(0)
    if image.format == "TIFF" and n_frames > _MOST_PAGES_COUNTED:
        return f"first frame of more than {_MOST_PAGES_COUNTED}"
    return f"first frame of {n_frames}" if n_frames > 1 else None


def _n_pages(tiff: ImageFile.ImageFile) -> int:
    """Pages of a TIFF, up to one more than are counted: each costs the more, the more came before it."""
    n_pages = 1
    with contextlib.suppress(EOFError):
        while n_pages <= _MOST_PAGES_COUNTED:
            tiff.seek(n_pages)
            n_pages += 1
    return n_pages


def _turn(image: Image.Image) -> tuple[Transpose | None, str | None]:
    """How to turn the image upright, and what to say if that cannot be known."""
    try:
        exif = image.getexif()
        turn = _TURNS.get(exif.get(ExifTags.Base.Orientation, 1))
        readable = bool(exif) or not image.info.get("exif")
    except (SyntaxError, ValueError, TypeError, LookupError, OverflowError, struct.error):
        turn, readable = None, False
    return turn, None if readable else "no EXIF data could be read: it may not be upright"


def _rgb(image: Image.Image, data: bytes) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return _of_sixteen_bits(image)
    if image.mode in ("I", "F"):
        raise ImageUnreadable(
            "the image's values (32 bits or signed) have no fixed range; save it with 8 or 16 bits a channel"
        )
    if image.mode == "La":
        # Pillow turns premultiplied grey into nothing else.
        image = image.convert("LA")
    if image.has_transparency_data:
        if image.format == "PNG" and image.mode == "L":
            # Pillow scales the pixels of 2 and 4 bits to 8, but not the transparent grey.
            most = 2 ** data[_PNG_DEPTH_AT] - 1
            image.info["transparency"] = image.info["transparency"] * 255 // most
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _of_sixteen_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits (or 12: TIFF), whose inversion and transparency Pillow leaves to us."""
    tags = getattr(image, "tag_v2", {})
    most = 2**12 - 1 if tags.get(_TIFF_BITS_PER_SAMPLE) == (12,) else 2**16 - 1
    greys = np.minimum((np.arange(2**16) * 255 + most // 2) // most, 255).astype(np.uint8)
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
        greys = 255 - greys
    if "transparency" in image.info:
        greys[image.info["transparency"]] = 255
    return Image.fromarray(greys[np.asarray(image)]).convert("RGB")
