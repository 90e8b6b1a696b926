"""Draws docs/figure.png, the README's picture, from a finished job of one photograph.

First `deconvoy run PHOTOGRAPH --weights hed --out OUT`, then
`python docs/make_figure.py OUT/<job id> docs/figure.png`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

CELL = 160
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

LAYERS = ("pool1", "pool2", "pool3", "pool4", "pool5")


def draw_figure(job: Path) -> Image.Image:
    """The photograph, its ten reconstructions, and where the five windows lie in it.

    `job` is the folder of a finished job of one photograph with the default specs, stored as PNG.
    """
    rows = {row["spec"]: row for row in pq.ParquetFile(job / "index.parquet").read().to_pylist()}
    with Image.open(job / "inputs" / f"{rows['pool1:all']['image_key']}.jpg") as file:
        photograph = file.convert("RGB")
    width = 2 * MARGIN + 6 * CELL + 5 * GAP
    height = 2 * MARGIN + HEADER + 2 * (CELL + CAPTION)
    figure = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(figure)
    upper, lower = MARGIN + HEADER, MARGIN + HEADER + CELL + CAPTION
    lefts = [MARGIN + column * (CELL + GAP) for column in range(6)]
    _text(draw, (lefts[0], MARGIN), "input", 18, INK)
    figure.paste(_enlarged(photograph), (lefts[0], upper))
    figure.paste(
        _enlarged(_marked(photograph, [rows[f"{layer}:max"] for layer in LAYERS])), (lefts[0], lower)
    )
    _text(draw, (lefts[0], lower + CELL + 5), "windows of pool1 to 5", 14, FAINT)
    for left, layer in zip(lefts[1:], LAYERS, strict=True):
        _text(draw, (left, MARGIN), layer, 18, INK)
        for top, selection in ((upper, "all"), (lower, "max")):
            row = rows[f"{layer}:{selection}"]
            with Image.open(job / row["key"]) as file:
                figure.paste(_enlarged(file.convert("RGB")), (left, top))
            _text(draw, (left, top + CELL + 5), _caption(row), 14, FAINT)
    return figure


def _caption(row: dict[str, Any]) -> str:
    if row["selection"] == "all":
        return "the whole map"
    return f"unit {row['unit']}, {row['right'] - row['left']} x {row['bottom'] - row['top']} px"


def _marked(photograph: Image.Image, rows: list[dict[str, Any]]) -> Image.Image:
    """The photograph with a numbered frame for each window, at four times the size for clean lines."""
    large = photograph.resize((4 * photograph.width, 4 * photograph.height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(large)
    for number, row in enumerate(rows, start=1):
        box = [4 * row[edge] for edge in ("left", "top", "right", "bottom")]
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        if row["right"] - row["left"] < SMALL_PX:
            box = [x - 52, y - 52, x + 52, y + 52]
            draw.ellipse(box, outline=MARK, width=8)
        else:
            draw.rectangle(box, outline=MARK, width=8)
        # Inside the frame's lower right corner; outside of a ring, on the side where there is room.
        at = (box[2] - 60, box[3] - 90)
        if row["right"] - row["left"] < SMALL_PX:
            at = (box[2] + 10, y - 44) if box[2] + 60 < large.width else (box[0] - 60, y - 44)
        draw.text(at, str(number), MARK, ImageFont.load_default(80), stroke_width=5, stroke_fill="white")
    return large


def _enlarged(picture: Image.Image) -> Image.Image:
    """Fitted into a cell; a small window keeps its pixels visible, an oblong one stands on zero's grey."""
    factor = CELL / max(picture.size)
    size = (round(picture.width * factor), round(picture.height * factor))
    how = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
    cell = Image.new("RGB", (CELL, CELL), ZERO)
    cell.paste(picture.resize(size, how), ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return cell


def _text(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size_px: int, colour: str) -> None:
    draw.text(at, text, colour, ImageFont.load_default(size_px))


if __name__ == "__main__":
    draw_figure(Path(sys.argv[1])).save(sys.argv[2], optimize=True)
