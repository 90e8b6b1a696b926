"""Pictures as files of every kind, each with the pixels that must come out of it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests import imagebytes as by_hand
from tests.imagebytes import chunk, filtered, saved
from worker.contract.architectures import MIN_IMAGE_SIZE
from worker.contract.jobs import Preprocessing
from worker.pipeline.preprocess import MAX_SIDE

WIDTH, HEIGHT = 48, 40
JPEG_ERROR = 8
"""What a JPEG of quality 95 may differ by, with its colours at half or a quarter of the resolution."""
UNREADABLE, TOO_LARGE, NOT_FOUND = "ImageUnreadable", "ImageTooLarge", "ImageNotFound"


@dataclass(frozen=True)
class Odd:
    """A file's name and bytes. Of it becomes `picture` (RGB, HWC; to `tolerance`) with `note`, or `error`.

    `name` may be an absolute path, of what is there already. Without `data` it names what
    `make_corpus` puts there otherwise, or nothing.
    """

    name: str
    data: bytes | None = None
    picture: npt.NDArray[np.uint8] | None = None
    tolerance: int = 0
    note: str | None = None
    error: str | None = None

    def error_with(self, preprocessing: Preprocessing) -> str | None:
        """The class of the error that a job with this preprocessing names, or None."""
        if self.picture is None:
            return self.error
        shorter, longer = sorted(self.picture.shape[:2])
        match preprocessing.resize:
            case "crop":
                resized = round(preprocessing.size_px * 256 / 224)
                return TOO_LARGE if resized * longer // shorter > MAX_SIDE else None
            case "fit":
                shorter, longer = round(preprocessing.size_px * shorter / longer), preprocessing.size_px
        if shorter < MIN_IMAGE_SIZE:
            return "ImageTooSmall"
        return TOO_LARGE if longer > MAX_SIDE else None


def upright() -> npt.NDArray[np.uint8]:
    """The picture that most files show: smooth, and different in each of its corners."""
    y_HW, x_HW = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([40 + 4 * x_HW, 30 + 5 * y_HW, 120 + x_HW - y_HW], axis=2).astype(np.uint8)


def grey() -> npt.NDArray[np.uint8]:
    """Likewise, in grey; HW. No value is 0, 255 or a multiple of 17."""
    return (upright()[:, :, 1] // 17 * 17 + 1 + np.arange(WIDTH) % 15).astype(np.uint8)


def _rgb(grey_HW: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.repeat(np.asarray(grey_HW, dtype=np.uint8)[:, :, None], 3, axis=2)


def _flat(*colour: int) -> npt.NDArray[np.uint8]:
    return np.full((HEIGHT, WIDTH, 3), colour, dtype=np.uint8)


def _over_white(rgb: npt.NDArray[Any], alpha_HW: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    share = alpha_HW[:, :, None] / 255
    return np.rint(rgb * share + 255 * (1 - share)).astype(np.uint8)


def _alpha() -> npt.NDArray[np.uint8]:
    """A quarter each: opaque, clear, and two in between."""
    return np.repeat(np.array([255, 0, 51, 204], dtype=np.uint8), WIDTH // 4)[None].repeat(HEIGHT, axis=0)


def _black_white() -> Image.Image:
    return Image.fromarray(grey() > 99)


def modes() -> Iterator[Odd]:
    """What PNG, JPEG, BMP, GIF and WebP hold beside RGB of 8 bits."""
    image, alpha = Image.fromarray(upright()), _alpha()
    rgba = Image.merge("RGBA", (*image.split(), Image.fromarray(alpha)))
    la = Image.merge("LA", (Image.fromarray(grey()), Image.fromarray(alpha)))
    palette = Image.fromarray(grey()).convert("P")
    bits = _rgb(np.asarray(_black_white()) * 255)
    for image_format in ("PNG", "BMP", "TIFF"):
        yield Odd(f"mode 1.{image_format.lower()}", saved(_black_white(), image_format), bits)
        yield Odd(f"mode P.{image_format.lower()}", saved(palette, image_format), _rgb(grey()))
    for image_format in ("PNG", "BMP", "TIFF", "GIF"):
        data = saved(Image.fromarray(grey()), image_format)
        yield Odd(f"mode L.{image_format.lower()}", data, _rgb(grey()))
    yield Odd("mode L.jpg", saved(Image.fromarray(grey()), "JPEG", quality=95), _rgb(grey()), JPEG_ERROR)
    over_white = _over_white(upright(), alpha)
    yield Odd("mode LA.png", saved(la, "PNG"), _over_white(_rgb(grey()), alpha), 1)
    yield Odd("mode RGBA.png", saved(rgba, "PNG"), over_white, 1)
    yield Odd("mode RGBA.webp", saved(rgba, "WEBP", lossless=True), over_white, 1)
    yield Odd("lossy.webp", saved(image, "WEBP", quality=95), upright(), JPEG_ERROR)
    entries = {"one clear.png": 1 + grey().min(), "one clear.gif": 1 + grey().min()}
    for name, entry in entries.items():
        clear = np.where(grey() == entry, 255, grey())
        yield Odd(name, saved(palette, name[-3:].upper(), transparency=int(entry)), _rgb(clear))
    half_clear = np.where(np.arange(256) % 2, 255, 51).astype(np.uint8)
    some_clear = _over_white(_rgb(grey()), half_clear[grey()])
    yield Odd("many clear.png", saved(palette, "PNG", transparency=half_clear.tobytes()), some_clear, 1)
    fours = grey().astype(int) // 17
    for depth, values in ((2, fours // 4), (4, fours)):
        most = 2**depth - 1
        packed = np.packbits((values[:, :, None] >> np.arange(depth)[::-1]) & 1, axis=None).reshape(
            HEIGHT, -1
        )
        clear = values[HEIGHT // 2, 0]
        shown = np.where(values == clear, 255, values * 255 // most)
        key = chunk(b"tRNS", struct.pack(">H", clear))
        for name, before, picture in (("", b"", values * 255 // most), (" with a clear one", key, shown)):
            data = by_hand.png(WIDTH, HEIGHT, depth, 0, filtered(packed), before)
            yield Odd(f"grey of {depth} bits{name}.png", data, _rgb(picture))
    clear_grey = chunk(b"tRNS", struct.pack(">H", grey()[3, 3]))
    data = by_hand.png(WIDTH, HEIGHT, 8, 0, filtered(grey()), clear_grey)
    yield Odd("clear grey.png", data, _rgb(np.where(grey() == grey()[3, 3], 255, grey())))
    clear_colour = chunk(b"tRNS", struct.pack(">3H", *upright()[3, 3]))
    picture = upright()
    picture[3, 3] = 255
    rows = filtered(upright().reshape(HEIGHT, -1))
    yield Odd("clear colour.png", by_hand.png(WIDTH, HEIGHT, 8, 2, rows, clear_colour), picture)
    wide = grey().astype(np.uint16) * 257 + 100
    clear_wide = chunk(b"tRNS", struct.pack(">H", wide[3, 3]))
    shown = np.where(wide == wide[3, 3], 255, grey())
    yield Odd("16 bits.png", by_hand.png(WIDTH, HEIGHT, 16, 0, filtered(wide)), _rgb(grey()))
    yield Odd(
        "16 bits, one clear.png", by_hand.png(WIDTH, HEIGHT, 16, 0, filtered(wide), clear_wide), _rgb(shown)
    )
    for colour_type, name, channels in ((2, "RGB", image), (6, "RGBA", rgba), (4, "LA", la)):
        pixels = np.asarray(channels).astype(np.uint16).reshape(HEIGHT, -1) * 257
        picture = {2: upright(), 6: over_white, 4: _over_white(_rgb(grey()), alpha)}[colour_type]
        data = by_hand.png(WIDTH, HEIGHT, 16, colour_type, filtered(pixels))
        yield Odd(f"16 bits {name}.png", data, picture, 1)


def tiffs() -> Iterator[Odd]:
    """What a TIFF may hold; with `modes`, all modes of Pillow that a file can have."""
    rgb, alpha = upright(), _alpha()
    wide = grey().astype(np.uint16) * 257
    over_white, grey_over_white = _over_white(rgb, alpha), _over_white(_rgb(grey()), alpha)
    premultiplied = np.rint(rgb * (alpha[:, :, None] / 255)).astype(np.uint8)
    dimmed = np.rint(grey() * (alpha / 255)).astype(np.uint8)
    bits = np.unpackbits(wide.astype(">u2").view(np.uint8).reshape(HEIGHT, WIDTH, 2), axis=2)
    ramp = [value * 257 for value in range(256)]
    palette = {320: [0] * 256 + ramp + ramp[::-1]}
    of_palette = np.stack([np.zeros_like(grey()), grey(), 255 - grey()], axis=2)
    cmyk = np.dstack([255 - rgb, np.zeros_like(grey())])
    ycbcr = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    premultiplying, straight, unspecified = {338: [1]}, {338: [2]}, {338: [0]}
    yield _tiff("16 bits", [16], 1, wide, _rgb(grey()))
    yield _tiff("16 bits big-endian", [16], 1, wide.astype(">u2"), _rgb(grey()), order=">")
    yield _tiff("16 bits white is 0", [16], 0, 65535 - wide, _rgb(grey()))
    yield _tiff("8 bits white is 0", [8], 0, 255 - grey(), _rgb(grey()))
    yield _tiff("12 bits", [12], 1, np.packbits(bits[:, :, :12]), _rgb(grey()), 1)
    yield _tiff("16 bits RGB", [16] * 3, 2, rgb.astype(np.uint16) * 257, rgb)
    yield _tiff("LA", [8] * 2, 1, np.dstack([grey(), alpha]), grey_over_white, 1, straight)
    yield _tiff("La", [8] * 2, 1, np.dstack([dimmed, alpha]), grey_over_white, 3, premultiplying)
    yield _tiff("RGBA", [8] * 4, 2, np.dstack([rgb, alpha]), over_white, 1, straight)
    yield _tiff("RGBa", [8] * 4, 2, np.dstack([premultiplied, alpha]), over_white, 3, premultiplying)
    yield _tiff("RGBX", [8] * 4, 2, np.dstack([rgb, alpha]), rgb, 0, unspecified)
    yield _tiff("P", [8], 3, grey(), of_palette, 0, palette)
    of_palette_over_white = _over_white(of_palette, alpha)
    yield _tiff(
        "PA", [8] * 2, 3, np.dstack([grey(), alpha]), of_palette_over_white, 1, {**palette, **straight}
    )
    yield _tiff("CMYK", [8] * 4, 5, cmyk, rgb, 1)
    yield _tiff("CMYK of 16 bits", [16] * 4, 5, cmyk.astype(np.uint16) * 257, rgb, 1)
    yield _tiff("YCbCr", [8] * 3, 6, ycbcr, rgb, 3, {530: [1, 1]})
    # L* times 2.55, a* and b* under D50; the colours of sRGB that they are by definition.
    yield _tiff("LAB grey", [8] * 3, 8, _flat(137, 0, 0), _flat(128, 128, 128), 2)
    yield _tiff("LAB blue", [8] * 3, 8, _flat(126, 1, 256 - 48), _flat(61, 120, 199), 2)
    yield _tiff("LAB green", [8] * 3, 8, _flat(150, 256 - 30, 20), _flat(91, 155, 105), 2)
    signed, floating = {339: [2]}, {339: [3]}
    yield _tiff("16 bits with a sign", [16], 1, wide, tags=signed)
    yield _tiff("32 bits", [32], 1, wide.astype(np.uint32))
    yield _tiff("32 bits floating", [32], 1, wide.astype(np.float32), tags=floating)
    yield _tiff("64 bits floating", [64], 1, wide.astype(np.float64), tags=floating)
    yield _tiff("JPEG 2000 inside", [8], 1, grey(), tags={259: [34712]})
    yield _tiff("unknown compression", [8], 1, grey(), tags={259: [9999]})
    yield _tiff("broken LZW", [8], 1, grey(), tags={259: [5]})
    yield _tiff("100 channels", [8] * 100, 1, grey())
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"):
        yield Odd(f"{compression}.tif", saved(Image.fromarray(rgb), "TIFF", compression=compression), rgb)
    yield Odd(
        "fax.tif", saved(_black_white(), "TIFF", compression="group4"), _rgb(np.asarray(_black_white()) * 255)
    )
    yield Odd("jpeg.tif", saved(Image.fromarray(rgb), "TIFF", compression="jpeg"), rgb, JPEG_ERROR)
    yield Odd("big.tif", saved(Image.fromarray(rgb), "TIFF", big_tiff=True), rgb)


def _tiff(
    name: str,
    bits: Sequence[int],
    photometric: int,
    pixels: npt.NDArray[Any],
    picture: npt.NDArray[np.uint8] | None = None,
    tolerance: int = 0,
    tags: Mapping[int, Sequence[int]] | None = None,
    order: str = "<",
) -> Odd:
    """Without a picture it is one that cannot be read."""
    data = by_hand.tiff(WIDTH, HEIGHT, bits, photometric, pixels.tobytes(), order, tags)
    return Odd(f"{name}.tif", data, picture, tolerance, error=UNREADABLE if picture is None else None)


def variants() -> Iterator[Odd]:
    """Ways to write the same picture, animations, and metadata that are broken."""
    image, rgb = Image.fromarray(upright()), upright()
    for name, options in (
        ("progressive", {"progressive": True}),
        ("4:1:1", {"subsampling": "4:1:1"}),
        ("4:2:0", {"subsampling": "4:2:0"}),
        ("kept as RGB", {"keep_rgb": True}),
        ("broken profile", {"icc_profile": b"no profile"}),
    ):
        yield Odd(f"{name}.jpg", saved(image, "JPEG", quality=95, **options), rgb, JPEG_ERROR)
    # Adobe's CMYK is stored inverted, which Pillow knows when it writes and when it reads.
    yield Odd("CMYK.jpg", saved(image.convert("CMYK"), "JPEG", quality=95), rgb, JPEG_ERROR)
    yield Odd("arithmetic.jpg", by_hand.arithmetic_jpeg(WIDTH, HEIGHT), _flat(128, 128, 128), 8)
    yield Odd("interlaced.png", by_hand.interlaced_png(rgb), rgb)
    yield Odd("broken profile.png", saved(image, "PNG", icc_profile=b"no profile"), rgb)
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    yield Odd("top down.bmp", by_hand.bmp(WIDTH, -HEIGHT, 24, bgr.tobytes()), rgb)
    yield Odd("of OS2.bmp", by_hand.old_bmp(WIDTH, HEIGHT, bgr[::-1].tobytes()), rgb)
    with_fourth = np.dstack([bgr, np.zeros_like(grey())])[::-1].tobytes()
    yield Odd("32 bits.bmp", by_hand.bmp(WIDTH, HEIGHT, 32, with_fourth), rgb)
    fives = (bgr.astype(np.uint16) >> 3) @ np.array([1, 32, 1024], np.uint16)
    yield Odd("16 bits.bmp", by_hand.bmp(WIDTH, HEIGHT, 16, fives[::-1].astype("<u2").tobytes()), rgb, 7)
    grey_palette = b"".join(bytes([value, value, value, 0]) for value in range(256))
    runs = b"".join(bytes([WIDTH, row[0], 0, 0]) for row in grey()[::-1]) + b"\0\1"
    run_picture = _rgb(np.repeat(grey()[:, :1], WIDTH, axis=1))
    yield Odd("run-length.bmp", by_hand.bmp(WIDTH, HEIGHT, 8, runs, grey_palette, compression=1), run_picture)
    frames = [image, Image.fromarray(255 - rgb), Image.new("RGB", image.size)]
    for image_format, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        data = saved(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
        yield Odd(f"animated.{image_format.lower()}", data, rgb, note="first frame of 3")
    greys = [Image.fromarray(grey()), Image.fromarray(255 - grey())]
    data = saved(greys[0], "GIF", save_all=True, append_images=greys[1:])
    yield Odd("animated.gif", data, _rgb(grey()), note="first frame of 2")
    broken = "no EXIF data could be read: it may not be upright"
    garbage, cut = b"Exif\0\0junkjunkjunk", by_hand.exif(6)[:18]
    for image_format in ("JPEG", "PNG", "WEBP"):
        quality: dict[str, Any] = {"lossless": True} if image_format == "WEBP" else {"quality": 95}
        tolerance = JPEG_ERROR if image_format == "JPEG" else 0
        for name, data in (("garbage", garbage), ("cut", cut)):
            file = saved(image, image_format, exif=data, **quality)
            yield Odd(f"exif {name}.{image_format.lower()}", file, rgb, tolerance, broken)
    yield Odd("orientation 9.png", saved(image, "PNG", exif=by_hand.exif(9)), rgb)


def turned() -> Iterator[Odd]:
    """The picture stored in all eight ways of EXIF: by their definition, which row and column come first."""
    stored = {
        1: upright(),
        2: upright()[:, ::-1],
        3: upright()[::-1, ::-1],
        4: upright()[::-1],
        5: upright().transpose(1, 0, 2),
        6: upright().transpose(1, 0, 2)[::-1],
        7: upright().transpose(1, 0, 2)[::-1, ::-1],
        8: upright().transpose(1, 0, 2)[:, ::-1],
    }
    for orientation, pixels in stored.items():
        image, exif = Image.fromarray(np.ascontiguousarray(pixels)), by_hand.exif(orientation)
        jpeg = saved(image, "JPEG", quality=95, exif=exif)
        yield Odd(f"turned {orientation}.jpg", jpeg, upright(), JPEG_ERROR)
        yield Odd(f"turned {orientation}.png", saved(image, "PNG", exif=exif), upright())
        lzw = saved(image, "TIFF", exif=exif, compression="tiff_lzw")
        yield Odd(f"turned {orientation}.tif", lzw, upright())
        yield Odd(f"turned {orientation}.webp", saved(image, "WEBP", lossless=True, exif=exif), upright())
