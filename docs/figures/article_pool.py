"""Section 4-1 of the article: a photograph is pooled and unpooled with torch's own layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from docs.figures.drawing import CAPTION, FAINT, GAP, INK, MARGIN, MARK, PAPER, Sheet, picture_of, write
from docs.figures.section import Material, Section, rounded

DETAIL_PX = 56
EYE_YX = (54, 38)
"""Upper left corner of the detail that is shown enlarged: an eye of the cat."""

SKETCH_INPUT = ((1, 2, 5), (3, 4, 0), (6, 1, 2))
SKETCH_CHANGED = ((10, 20), (30, 40))
"""What may come down to the sketch's pool instead of what went up."""

_PLACE_PX = 40

Matrix = Sequence[Sequence[int | list[int]]]
"""Rows of values; where two meet, both."""


@dataclass(frozen=True)
class Pooled:
    """A map, its maxima and where they stood, and these laid back: N, C, H, W in torch's own layers."""

    before_NCHW: Tensor
    pooled_NCHW: Tensor
    switches_NCHW: Tensor
    unpooled_NCHW: Tensor


def pool_and_unpool(x_NCHW: Tensor, stride: int) -> Pooled:
    """Max-pool 2 x 2 and unpool, as the article does it."""
    pooled_NCHW, switches_NCHW = nn.MaxPool2d(2, stride, return_indices=True)(x_NCHW)
    unpooled_NCHW = nn.MaxUnpool2d(2, stride)(pooled_NCHW, switches_NCHW)
    return Pooled(x_NCHW, pooled_NCHW, switches_NCHW, unpooled_NCHW)


def make(material: Material) -> Section:
    """The photograph pooled and unpooled, and the sketch."""
    numbers = numbers_of(material)
    figures = {"pool.png": _figure(_pooled(material)), "sketch.png": _sketch(numbers["sketch"])}
    return Section(figures, numbers)


def numbers_of(material: Material) -> dict[str, dict[str, Any]]:
    """What pooling loses of the photograph; and the sketch's matrices."""
    sketch = pool_and_unpool(torch.tensor(SKETCH_INPUT, dtype=torch.float32)[None, None], stride=1)
    matrices: dict[str, Matrix] = {
        "input": _whole(sketch.before_NCHW),
        "pooled": _whole(sketch.pooled_NCHW),
        "unpooled": _whole(sketch.unpooled_NCHW),
        "changed": [list(row) for row in SKETCH_CHANGED],
        "changed_unpooled": _candidates(sketch.switches_NCHW),
    }
    return {"pool": _losses(_pooled(material)), "sketch": matrices}


def _pooled(material: Material) -> Pooled:
    return pool_and_unpool(torch.from_numpy(material.pixels_HWC).permute(2, 0, 1)[None].float(), stride=2)


def _losses(of: Pooled) -> dict[str, float]:
    before, unpooled = of.before_NCHW.double(), of.unpooled_NCHW.double()
    again_NCHW = nn.functional.max_pool2d(of.unpooled_NCHW, 2)
    return {
        "places_kept_percent": rounded(100 * of.pooled_NCHW.numel() / before.numel()),
        "energy_kept_percent": rounded(100 * float(unpooled.square().sum() / before.square().sum())),
        "mean_before": rounded(float(before.mean())),
        "mean_pooled": rounded(float(of.pooled_NCHW.double().mean())),
        "mean_unpooled": rounded(float(unpooled.mean())),
        "pooled_again_difference": float((again_NCHW - of.pooled_NCHW).abs().max()),
    }


def _whole(matrix_NCHW: Tensor) -> Matrix:
    return [[int(value) for value in row] for row in matrix_NCHW[0, 0].tolist()]


def _candidates(switches_NCHW: Tensor) -> Matrix:
    """What may stand in each place when `SKETCH_CHANGED` is unpooled: where two values meet, both.

    Not computed with torch: its documentation leaves open which of the two stays.
    """
    met: dict[int, list[int]] = {place: [] for place in range(9)}
    for row, switches in zip(SKETCH_CHANGED, switches_NCHW[0, 0].tolist(), strict=True):
        for value, switch in zip(row, switches, strict=True):
            met[switch].append(value)
    flat = [values[0] if len(values) == 1 else values or 0 for values in met.values()]
    return [flat[first : first + 3] for first in (0, 3, 6)]


def _figure(of: Pooled) -> Image.Image:
    sheet = Sheet(columns=3, rows=2, cell_px=224)
    rows = (
        ("photograph", of.before_NCHW, 1),
        ("pooled", of.pooled_NCHW, 2),
        ("unpooled", of.unpooled_NCHW, 1),
    )
    top, left = EYE_YX
    for column, (name, values_NCHW, shrunk) in enumerate(rows):
        picture = picture_of(values_NCHW[0].permute(1, 2, 0).numpy().astype(np.uint8))
        sheet.heading(column, name)
        sheet.put(column, 0, picture, f"{picture.width} x {picture.height}")
        box = [edge // shrunk for edge in (left, top, left + DETAIL_PX, top + DETAIL_PX)]
        detail = picture.crop((box[0], box[1], box[2], box[3]))
        sheet.put(column, 1, detail, f"{detail.width} x {detail.height} of it")
        corner_left, corner_top = sheet.corner(column, 0)
        frame = (left, top, left + DETAIL_PX, top + DETAIL_PX)
        sheet.draw.rectangle(
            [edge + (corner_top if i % 2 else corner_left) for i, edge in enumerate(frame)],
            outline=MARK,
            width=2,
        )
    return sheet.figure


def _sketch(matrices: Mapping[str, Matrix]) -> Image.Image:
    """The matrices in a row, each value in its place; what is not zero after unpooling is marked."""
    captions = {
        "input": "input",
        "pooled": "pooled: 2 x 2, stride 1",
        "unpooled": "unpooled",
        "changed": "other values come down",
        "changed_unpooled": "unpooled: one of two",
    }
    columns_px = 3 * _PLACE_PX + 4 * GAP
    size = (2 * MARGIN + len(matrices) * columns_px, 2 * MARGIN + CAPTION + 3 * _PLACE_PX)
    figure = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(figure)
    for column, (name, matrix) in enumerate(matrices.items()):
        left = MARGIN + column * columns_px
        inset = (3 - len(matrix)) * _PLACE_PX / 2
        for y, row in enumerate(matrix):
            for x, value in enumerate(row):
                at = (left + inset + x * _PLACE_PX, MARGIN + inset + y * _PLACE_PX)
                draw.rectangle((*at, at[0] + _PLACE_PX, at[1] + _PLACE_PX), outline=FAINT)
                colour = MARK if "unpooled" in name and value else INK
                middle = (at[0] + _PLACE_PX / 2, at[1] + _PLACE_PX / 2)
                words = "\nor\n".join(map(str, value)) if isinstance(value, list) else str(value)
                size_px = 11 if isinstance(value, list) else 18
                draw.text(middle, words, colour, ImageFont.load_default(size_px), anchor="mm", spacing=0)
        write(draw, (left, MARGIN + 3 * _PLACE_PX + 8), captions[name], 14, FAINT)
    return figure
