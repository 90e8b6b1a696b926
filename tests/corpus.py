"""Odd image files, made here, each with what must come out of it: a picture, or the class of an error."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from tests import imagebytes as by_hand
from tests.imagebytes import chunk, filtered, saved
from tests.odd_pictures import (
    HEIGHT,
    JPEG_ERROR,
    NOT_FOUND,
    TOO_LARGE,
    UNREADABLE,
    WIDTH,
    Odd,
    modes,
    tiffs,
    turned,
    upright,
    variants,
)

HUGE = 60_000


def make_corpus(folder: Path) -> list[Odd]:
    """Put the files into `folder`; returns them in the order of their making, all names different."""
    odd_files = [
        *faults(),
        *bombs(),
        *modes(),
        *tiffs(),
        *variants(),
        *turned(),
        *sizes(),
        *names(),
        *places(),
    ]
    for odd in odd_files:
        if odd.data is not None:
            (folder / odd.name).write_bytes(odd.data)
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "dangling.png").symlink_to(folder / "nothing.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "denied.png").write_bytes(saved(Image.fromarray(upright()), "PNG"))
    (folder / "denied.png").chmod(0)
    return odd_files


def _damaged(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def faults() -> Iterator[Odd]:
    """No image, half an image, an image under a wrong name."""
    image = Image.fromarray(upright())
    whole = {
        image_format: saved(image, image_format) for image_format in ("PNG", "WEBP", "BMP", "GIF", "TIFF")
    }
    whole["JPEG"] = saved(image, "JPEG", quality=95)
    png = saved(image, "PNG", compress_level=0)
    for image_format, data in whole.items():
        yield Odd(f"truncated.{image_format.lower()}", data[: len(data) // 2], error=UNREADABLE)
    yield Odd("empty.jpg", b"", error=UNREADABLE)
    yield Odd("signature.png", by_hand.PNG_SIGNATURE, error=UNREADABLE)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", whole["PNG"])
    for name, data in (
        ("text.jpg", b"no image\n" * 99),
        ("page.jpg", b"<!DOCTYPE html><title>404</title>"),
        ("data.png", b'{"error": "no such key"}'),
        ("archive.jpg", archive.getvalue()),
        ("drawing.png", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
        ("document.jpg", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"),
        ("postscript.tif", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"),
        ("anymap.png", saved(image, "PPM")),
        ("icon.png", saved(image, "ICO")),
        ("zeros.jpg", bytes(1000)),
    ):
        yield Odd(name, data, error=UNREADABLE)
    yield Odd("png named.jpg", whole["PNG"], upright())
    yield Odd("jpeg named.png", whole["JPEG"], upright(), JPEG_ERROR)
    yield Odd("tiff named.gif", whole["TIFF"], upright())
    yield Odd("bmp named.webp", whole["BMP"], upright())
    yield Odd("png without a suffix", whole["PNG"], upright())
    for name, data in (
        ("no pixels.png", by_hand.png(0, 0, 8, 2, b"")),
        ("no pixels.gif", by_hand.gif(0, 0, 0, 0)),
        ("no pixels.bmp", by_hand.bmp(0, 0, 24, b"")),
        ("no pixels.tif", by_hand.tiff(0, 0, [8], 1, b"")),
        ("no pixels.jpg", by_hand.jpeg_header(0, 0)),
    ):
        yield Odd(name, data, error=UNREADABLE)
    yield Odd("header checksum.png", _damaged(png, 30), error=UNREADABLE)
    yield Odd("pixel damaged.png", _damaged(png, len(png) // 2), error=UNREADABLE)
    yield Odd("without its end.png", png[:-12], upright())
    yield Odd("without its end.jpg", whole["JPEG"][:-2], error=UNREADABLE)
    yield Odd("trailing garbage.jpg", whole["JPEG"] + b"garbage" * 999, upright(), JPEG_ERROR)
    yield Odd("trailing garbage.png", png + b"garbage" * 999, upright())


def bombs() -> Iterator[Odd]:
    """A few bytes that claim to be a great deal."""
    zeros = zlib.compress(bytes(70_000_000), 9)
    rows = filtered(upright().reshape(HEIGHT, -1))
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "a" * 2_000_000)
    image = Image.fromarray(upright())
    for name, data in (
        ("huge.png", by_hand.png(HUGE, HUGE, 8, 2, b"")),
        ("huge.gif", by_hand.gif(HUGE, HUGE, HUGE, HUGE)),
        ("huge frame.gif", by_hand.gif(9, 9, HUGE, HUGE)),
        ("huge.tif", by_hand.tiff(HUGE, HUGE, [8], 1, b"")),
        ("huge.bmp", by_hand.bmp(HUGE, HUGE, 24, b"")),
        ("huge.jpg", by_hand.jpeg_header(HUGE, HUGE)),
        ("huge.webp", by_hand.webp_header(HUGE, HUGE)),
    ):
        yield Odd(name, data, error=TOO_LARGE)
    for name, bomb in (("zTXt", b"k\0\0"), ("iTXt", b"k\0\1\0\0\0"), ("iCCP", b"k\0\0")):
        data = by_hand.png(WIDTH, HEIGHT, 8, 2, rows, before=chunk(name.encode(), bomb + zeros))
        yield Odd(f"bomb in {name}.png", data, error=UNREADABLE)
    more_rows = by_hand.png(WIDTH, HEIGHT, 8, 2, rows + bytes(70_000_000))
    yield Odd("more rows than its height.png", more_rows, upright())
    yield Odd("long text.png", saved(image, "PNG", pnginfo=text), upright())
    progressive = saved(image, "JPEG", progressive=True)
    yield Odd("1000 scans.jpg", by_hand.with_scans_repeated(progressive, 1000), error=UNREADABLE)
    black = np.zeros((1, 1, 3), np.uint8)
    pages = "first frame of more than 1000"
    yield Odd("5000 frames.gif", by_hand.gif(1, 1, 1, 1, 5000), black, note="first frame of 5000")
    yield Odd("5000 pages.tif", by_hand.many_pages(5000), np.full_like(black, 0x50), note=pages)


def sizes() -> Iterator[Odd]:
    """Very small, very thin."""
    for width, height in ((1, 1), (1, 5000), (5000, 1), (31, 31), (32, 32), (20_000, 32), (63, 1)):
        picture = np.full((height, width, 3), (200, 100, 50), dtype=np.uint8)
        yield Odd(f"{width} x {height}.png", saved(Image.fromarray(picture), "PNG"), picture)


def names() -> Iterator[Odd]:
    """A good picture under a name that is hard to write down."""
    data = saved(Image.fromarray(upright()), "PNG")
    for name in (
        "new\nline.png",
        "tab\tand\rreturn.png",
        "'quotes\" `and` $(more).png",
        "<script>alert(1)<",
        "emoji \N{SNOWMAN}\N{PINE DECORATION}.png",
        "-leading-dash.png",
        " leading space.png",
        "per%20cent&amp;#?.png",
        "back\\slash.png",
        "{braces} [brackets] *.png",
        "two..dots.png",
        "\N{RIGHT-TO-LEFT OVERRIDE}gnp.png",
        "l" + "o" * 245 + "ng.p",
    ):
        yield Odd(name, data, upright())


def places() -> Iterator[Odd]:
    """What is named, but is no file."""
    yield Odd("vanished.png", error=NOT_FOUND)
    yield Odd("vanished\nwith 'its' <b>line</b>.png", error=NOT_FOUND)
    yield Odd("empty.jpg/below a file.png", error=NOT_FOUND)
    yield Odd("x" * 300 + ".png", error=NOT_FOUND)
    yield Odd("dangling.png", error=NOT_FOUND)
    yield Odd("loop.png", error=UNREADABLE)
    yield Odd("folder.png", error=UNREADABLE)
    yield Odd("pipe.png", error=UNREADABLE)
    yield Odd("/dev/zero", error=UNREADABLE)
    if os.geteuid():  # root may read everything; test_pipeline_source drops that right for a moment
        yield Odd("denied.png", error=UNREADABLE)
