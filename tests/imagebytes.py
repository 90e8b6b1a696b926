"""Image files written by hand, byte by byte: what Pillow reads, but does not write."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def saved(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """What Pillow writes."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    """EXIF data that hold an orientation alone."""
    return b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, orientation, 0)


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(
    width: int,
    height: int,
    depth: int,
    colour_type: int,
    rows: bytes,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A PNG of `rows`, each of which opens with its filter. Chunks `before` and `after` stand around them.

    `depth` is in bits a channel; `colour_type` is 0 for grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA.
    """
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    return PNG_SIGNATURE + header + before + chunk(b"IDAT", zlib.compress(rows)) + after + chunk(b"IEND", b"")


def filtered(rows: npt.NDArray[Any]) -> bytes:
    """Rows as a PNG holds them: big-endian, each after a byte that says it is not filtered."""
    return b"".join(b"\0" + row.astype(rows.dtype.newbyteorder(">")).tobytes() for row in rows)


def interlaced_png(pixels_HWC: npt.NDArray[np.uint8]) -> bytes:
    """An RGB PNG in the seven passes of Adam7."""
    height, width, _ = pixels_HWC.shape
    passes = [pixels_HWC[top::down, left::right] for left, top, right, down in _ADAM7]
    rows = b"".join(b"\0" + row.tobytes() for pixels in passes for row in pixels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1))
    return PNG_SIGNATURE + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(
    width: int,
    height: int,
    bits: Sequence[int],
    photometric: int,
    pixels: bytes,
    order: str = "<",
    tags: Mapping[int, Sequence[int]] | None = None,
) -> bytes:
    """A TIFF of one strip. `bits` are those of each sample; `order` is `<` or `>`.

    `photometric`: 0 white is zero, 1 black is zero, 2 RGB, 3 palette, 5 CMYK, 6 YCbCr, 8 CIE L*a*b*.
    """
    values = {
        256: [width],
        257: [height],
        258: bits,
        259: [1],
        262: [photometric],
        273: [0],
        277: [len(bits)],
        278: [height],
        279: [len(pixels)],
        **(tags or {}),
    }
    # All values are LONG but those that readers want to be SHORT: the colour map and what counts samples.
    kinds = {tag: "I" if tag in (256, 257, 273, 278, 279) else "H" for tag in values}
    data_at = 8 + 2 + 12 * len(values) + 4
    outside = {tag: struct.pack(f"{order}{len(v)}{kinds[tag]}", *v) for tag, v in values.items()}
    outside = {tag: data for tag, data in outside.items() if len(data) > 4}
    values[273] = [data_at + sum(map(len, outside.values()))]
    entries, blob = b"", b""
    for tag in sorted(values):
        data = struct.pack(f"{order}{len(values[tag])}{kinds[tag]}", *values[tag])
        if tag in outside:
            place = struct.pack(f"{order}I", data_at + len(blob))
            blob += data
        else:
            place = data.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", tag, 4 if kinds[tag] == "I" else 3, len(values[tag])) + place
    head = b"II*\0" if order == "<" else b"MM\0*"
    count = struct.pack(f"{order}IH", 8, len(values))
    return head + count + entries + bytes(4) + blob + pixels


def many_pages(n_pages: int) -> bytes:
    """A TIFF of `n_pages` pages of one pixel, which all show the same byte."""
    tags = ((256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (279, 1))
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags)
    n_bytes = 2 + len(entries) + 4
    places = [9 + n_bytes * page for page in range(1, n_pages)] + [0]
    pages = (struct.pack("<H", len(tags)) + entries + struct.pack("<I", place) for place in places)
    return b"II*\0" + struct.pack("<I", 9) + b"\x50" + b"".join(pages)


def gif(width: int, height: int, frame_width: int, frame_height: int, n_frames: int = 1) -> bytes:
    """A black and white GIF; each frame holds one black pixel's data, whatever its size."""
    head = b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    frame = b"," + struct.pack("<HHHH", 0, 0, frame_width, frame_height) + b"\0\2\2\x44\1\0"
    return head + frame * n_frames + b";"


def bmp(
    width: int, height: int, bits: int, pixels: bytes, palette: bytes = b"", compression: int = 0
) -> bytes:
    """A BMP; its rows come bottom up, or top down with a negative `height`. `palette` is BGR0, BGR0, …"""
    start = 14 + 40 + len(palette)
    head = b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start)
    n_colours = len(palette) // 4
    info = (40, width, height, 1, bits, compression, len(pixels), 0, 0, n_colours, 0)
    return head + struct.pack("<IiiHHIIiiII", *info) + palette + pixels


def old_bmp(width: int, height: int, pixels: bytes) -> bytes:
    """A BMP of 24 bits with the short header of OS/2."""
    return b"BM" + struct.pack("<IHHIIHHHH", 26 + len(pixels), 0, 0, 26, 12, width, height, 1, 24) + pixels


def jpeg_header(width: int, height: int) -> bytes:
    """A JPEG of three channels that ends where its pixels would begin."""
    frame = struct.pack(">BHHB", 8, height, width, 3) + b"\1\x22\0\2\x11\1\3\x11\1"
    scan = b"\3\1\0\2\x11\3\x11\0\x3f\0"
    return b"\xff\xd8" + _segment(0xC0, frame) + _segment(0xDA, scan)


def arithmetic_jpeg(width: int, height: int) -> bytes:
    """Nearly flat mid-grey, arithmetically coded: a progressive scan without data is one of small steps."""
    table = _segment(0xDB, b"\0" + b"\1" * 64)
    frame = _segment(0xCA, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0")
    return b"\xff\xd8" + table + frame + _segment(0xDA, b"\1\1\0\0\0\0") + b"\xff\xd9"


def without_segment(jpeg: bytes, marker: int) -> bytes:
    """The JPEG without the first segment of this kind."""
    start = jpeg.index(bytes([0xFF, marker]))
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4]) :]


def with_scans_repeated(jpeg: bytes, times: int) -> bytes:
    """A progressive JPEG whose last scan comes again, `times` more."""
    start = jpeg.rindex(b"\xff\xc4", 0, jpeg.rindex(b"\xff\xda"))
    return jpeg[:-2] + jpeg[start:-2] * times + jpeg[-2:]


def webp_header(width: int, height: int) -> bytes:
    """An extended WebP that claims a canvas of this size and holds 16 x 16 pixels."""
    canvas = b"\x10\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    picture = saved(Image.new("RGB", (16, 16)), "WEBP", lossless=True)[12:]
    body = b"WEBPVP8X" + struct.pack("<I", len(canvas)) + canvas + picture
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
