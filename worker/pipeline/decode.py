"""From an image's bytes to an upright RGB picture of 8 bits a channel. Knows no files and no network.

Pillow decodes, from an allow-list of formats. Colour profiles are not applied, as in torchvision.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from worker.contract.errors import ImageError, ImageTooLarge, ImageUnreadable

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

warnings.simplefilter("error", Image.DecompressionBombWarning)


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
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            # Not left to Pillow's warning alone: a host program may silence warnings.
            if image.width * image.height > max_pixels:
                raise _too_large(max_pixels)
            note = _note(image)
            image.load()
            return Photograph(_rgb(ImageOps.exif_transpose(image)), note)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        names = ", ".join(FORMATS)
        raise ImageUnreadable(f"the bytes are no image of a known format ({names})") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_large(max_pixels) from error
    except Exception as error:
        # Bytes that are broken in the right way raise nearly anything out of Pillow's decoders.
        reason = str(error) or type(error).__name__
        raise ImageUnreadable(f"the image is cut short or broken: {reason}") from error


def _too_large(max_pixels: int) -> ImageTooLarge:
    return ImageTooLarge(
        f"the image has more than the {max_pixels} pixels allowed; "
        "raise DECONVOY_MAX_IMAGE_PIXELS if that is meant"
    )


def _note(image: Image.Image) -> str | None:
    n_frames = getattr(image, "n_frames", 1)
    image.seek(0)
    return f"first frame of {n_frames}" if n_frames > 1 else None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        values_HW = np.asarray(image).astype(np.int64)
        return Image.fromarray(((values_HW + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ImageUnreadable(
            "the image has 32 bits a pixel, without a fixed range; save it with 8 or 16 bits a channel"
        )
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
