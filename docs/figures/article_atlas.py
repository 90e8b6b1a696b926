"""The paper's Figure 2: the images that excite a unit most, from an audit of patches of photographs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from docs.figures.commands import FinishedAudit
from docs.figures.drawing import CAPTION, FAINT, GAP, HEADER, INK, MARGIN, PAPER, write
from docs.figures.section import Section

PATCH_PX = 128
N_TOP = 9
MIN_PHOTOGRAPHS = 4
"""A unit's nine patches must come from so many: a single photograph's texture says little of a unit."""
SHOWN = {"pool2": 9, "pool3": 3}
"""How many units of which layer."""

_CELL_PX = 48
_UNITS_A_ROW = 3
_BLOCK_PX = 3 * _CELL_PX
_BETWEEN_PX = 6


@dataclass(frozen=True)
class Unit:
    """A unit whose top images are shown. `photographs`: how many photographs these are cut from."""

    layer: str
    number: int
    specificity: float
    photographs: int


def cut_patches(photographs: Iterable[Path], folder: Path) -> int:
    """Cut photographs into squares, edge to edge, and store each as a file; returns how many."""
    folder.mkdir()
    n_patches = 0
    for path in photographs:
        with Image.open(path) as file:
            photograph = file.convert("RGB")
        for top in range(0, photograph.height - PATCH_PX + 1, PATCH_PX):
            for left in range(0, photograph.width - PATCH_PX + 1, PATCH_PX):
                patch = photograph.crop((left, top, left + PATCH_PX, top + PATCH_PX))
                patch.save(folder / f"{path.stem}-{top}-{left}.png", compress_level=1)
                n_patches += 1
    return n_patches


def make(audit: FinishedAudit, n_photographs: int, n_patches: int) -> Section:
    """The figure, and how the units on it were chosen."""
    units, atlas = audit.table("units"), audit.table("atlas")
    chosen = {layer: choose(layer, units, atlas)[:number] for layer, number in SHOWN.items()}
    numbers: dict[str, Any] = {"n_photographs": n_photographs, "n_patches": n_patches, "patch_px": PATCH_PX}
    for layer, of_layer in chosen.items():
        rows = [row for row in units if row["layer"] == layer]
        drawn = [row["specificity"] for row in rows if row["specificity"] is not None]
        numbers[layer] = {
            "n_units": len(rows),
            "n_dead": sum(row["state"] == "dead" for row in rows),
            "median_specificity": round(sorted(drawn)[len(drawn) // 2], 2),
            "shown": [unit.number for unit in of_layer],
            "shown_specificity": [round(unit.specificity, 2) for unit in of_layer],
        }
    return Section({"atlas.png": _figure(audit, chosen)}, {"atlas": numbers})


def choose(layer: str, units: Sequence[dict[str, Any]], atlas: Sequence[dict[str, Any]]) -> list[Unit]:
    """The units whose nine patches come from enough photographs, the most specific first."""
    photographs: dict[int, list[str]] = defaultdict(list)
    for row in atlas:
        if row["layer"] == layer:
            photographs[row["unit"]].append(Path(row["image"]).stem.rsplit("-", 2)[0])
    found = [
        Unit(layer, row["unit"], row["specificity"], len(set(photographs[row["unit"]])))
        for row in units
        if row["layer"] == layer and len(photographs[row["unit"]]) == N_TOP
    ]
    enough = [unit for unit in found if unit.photographs >= MIN_PHOTOGRAPHS]
    return sorted(enough, key=lambda unit: (-round(unit.specificity, 4), unit.number))


def _figure(audit: FinishedAudit, chosen: dict[str, list[Unit]]) -> Image.Image:
    pair_px = 2 * _BLOCK_PX + _BETWEEN_PX
    row_px = _BLOCK_PX + CAPTION + GAP
    n_rows = {layer: -(-len(units) // _UNITS_A_ROW) for layer, units in chosen.items()}
    width = 2 * MARGIN + _UNITS_A_ROW * pair_px + (_UNITS_A_ROW - 1) * 2 * GAP
    height = 2 * MARGIN + len(chosen) * HEADER + sum(n_rows.values()) * row_px
    figure = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(figure)
    y = MARGIN
    for layer, units in chosen.items():
        write(draw, (MARGIN, y), layer, 18, INK)
        y += HEADER
        for index, unit in enumerate(units):
            x = MARGIN + index % _UNITS_A_ROW * (pair_px + 2 * GAP)
            top = y + index // _UNITS_A_ROW * row_px
            for column, what in enumerate(("reconstructions", "patches")):
                cells = audit.cells(layer, unit.number, what)
                figure.paste(_block(cells), (x + column * (_BLOCK_PX + _BETWEEN_PX), top))
            words = f"unit {unit.number}, specificity {unit.specificity:.2f}"
            write(draw, (x, top + _BLOCK_PX + 5), words, 14, FAINT)
        y += n_rows[layer] * row_px
    return figure


def _block(cells: Sequence[Image.Image]) -> Image.Image:
    """Nine cells, three in a row, the strongest first."""
    block = Image.new("RGB", (_BLOCK_PX, _BLOCK_PX))
    for index, cell in enumerate(cells):
        # Pixels stay visible where they are enlarged by a whole number.
        how = Image.Resampling.BICUBIC if _CELL_PX % cell.width else Image.Resampling.NEAREST
        place = (index % 3 * _CELL_PX, index // 3 * _CELL_PX)
        block.paste(cell.resize((_CELL_PX, _CELL_PX), how), place)
    return block
