"""Draws docs/figure.png, the README's picture, from a finished job of one photograph.

First `deconvoy run PHOTOGRAPH --weights hed --out OUT`, then
`python -m docs.figures.readme OUT/JOB docs/figure.png`. `make article` does both.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from PIL import Image

from docs.figures.commands import FinishedRun
from docs.figures.drawing import Sheet, marked, save

LAYERS = ("pool1", "pool2", "pool3", "pool4", "pool5")


def draw_figure(run: FinishedRun) -> Image.Image:
    """The photograph, its ten reconstructions, and where the five windows lie in it."""
    photograph = run.photograph()
    sheet = Sheet(columns=6, rows=2)
    sheet.heading(0, "input")
    sheet.put(0, 0, photograph)
    windows = [run.window(f"{layer}:max") for layer in LAYERS]
    sheet.put(0, 1, marked(photograph, windows, "12345"), "windows of pool1 to 5")
    for column, layer in enumerate(LAYERS, start=1):
        sheet.heading(column, layer)
        for row, selection in enumerate(("all", "max")):
            spec = f"{layer}:{selection}"
            sheet.put(column, row, run.picture(spec), _caption(run.rows[spec]))
    return sheet.figure


def _caption(row: dict[str, Any]) -> str:
    if row["selection"] == "all":
        return "the whole map"
    return f"unit {row['unit']}, {row['right'] - row['left']} x {row['bottom'] - row['top']} px"


if __name__ == "__main__":
    save(draw_figure(FinishedRun(Path(sys.argv[1]))), Path(sys.argv[2]))
