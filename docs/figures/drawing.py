"""What all figures share: colours, letters, a sheet of cells, and how a figure is saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

GAP = 12
MARGIN = 20
HEADER = 34
CAPTION = 26

PAPER = "#fdfdfb"
INK = "#1b1b1f"
FAINT = "#6a6a72"
MARK = "#ff5a1f"
ZERO = (128, 128, 128)
SMALL_PX = 30
"""A window narrower than this gets a ring, so that it is found."""

_N_COLOURS = 256
"""Of a file's palette: a reconstruction has few colours, and such a file is a third of one of all."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass
class Sheet:
    """A figure of `columns` x `rows` square cells on paper, with room for a heading above each column and
    a caption below each cell.
    """

    columns: int
    rows: int
    cell_px: int = 160
    header_px: int = HEADER
    figure: Image.Image = field(init=False)
    draw: ImageDraw.ImageDraw = field(init=False)

    def __post_init__(self) -> None:
        width = 2 * MARGIN + self.columns * self.cell_px + (self.columns - 1) * GAP
        height = 2 * MARGIN + self.header_px + self.rows * (self.cell_px + CAPTION)
        self.figure = Image.new("RGB", (width, height), PAPER)
        self.draw = ImageDraw.Draw(self.figure)

    def corner(self, column: int, row: int) -> tuple[int, int]:
        """Left and top of a cell."""
        return (
            MARGIN + column * (self.cell_px + GAP),
            MARGIN + self.header_px + row * (self.cell_px + CAPTION),
        )

    def heading(self, column: int, words: str) -> None:
        """Write above a column."""
        write(self.draw, (self.corner(column, 0)[0], MARGIN), words, 18, INK)

    def put(self, column: int, row: int, picture: Image.Image, caption: str = "") -> None:
        """Lay a picture into a cell, as large as it fits, and write below it."""
        left, top = self.corner(column, row)
        self.figure.paste(fitted(picture, self.cell_px), (left, top))
        self.caption(column, row, caption)

    def caption(self, column: int, row: int, words: str) -> None:
        """Write below a cell."""
        left, top = self.corner(column, row)
        write(self.draw, (left, top + self.cell_px + 5), words, 14, FAINT)


def write(draw: ImageDraw.ImageDraw, at: tuple[float, float], words: str, size_px: int, colour: str) -> None:
    """Write a line whose upper left corner is `at`."""
    draw.text(at, words, colour, ImageFont.load_default(size_px))


def fitted(picture: Image.Image, side: int) -> Image.Image:
    """Fitted into a square; a small one keeps its pixels visible, an oblong one stands on zero's grey."""
    factor = side / max(picture.size)
    size = (round(picture.width * factor), round(picture.height * factor))
    how = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
    square = Image.new("RGB", (side, side), ZERO)
    square.paste(picture.resize(size, how), ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def marked(photograph: Image.Image, windows: Sequence[Box], names: Sequence[str]) -> Image.Image:
    """The photograph with a named frame for each window, at four times the size for clean lines."""
    large = photograph.resize((4 * photograph.width, 4 * photograph.height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(large)
    for window, name in zip(windows, names, strict=True):
        box = [4 * edge for edge in window]
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        small = window[2] - window[0] < SMALL_PX
        if small:
            box = [x - 52, y - 52, x + 52, y + 52]
            draw.ellipse(box, outline=MARK, width=8)
        else:
            draw.rectangle(box, outline=MARK, width=8)
        # Inside the frame's lower right corner; outside of a ring, on the side where there is room.
        at = (box[2] - 60, box[3] - 90)
        if small:
            at = (box[2] + 10, y - 44) if box[2] + 60 < large.width else (box[0] - 60, y - 44)
        draw.text(at, name, MARK, ImageFont.load_default(80), stroke_width=5, stroke_fill="white")
    return large


def picture_of(pixels_HWC: npt.NDArray[np.uint8]) -> Image.Image:
    """Pixels as a picture."""
    return Image.fromarray(np.ascontiguousarray(pixels_HWC))


def save(figure: Image.Image, path: Path) -> None:
    """Write a PNG with a palette: the same bytes for the same figure."""
    small = figure.quantize(_N_COLOURS, Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
    small.save(path, "PNG", optimize=True)
