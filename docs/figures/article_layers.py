"""Section 5 of the article: A and B after each of the five pools."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from docs.figures.article_way import ArticleWay
from docs.figures.commands import FinishedRun
from docs.figures.drawing import Sheet, marked
from docs.figures.section import POOLS, Material, Section, rounded, similarity


def make(run: FinishedRun, material: Material, way: ArticleWay) -> Section:
    """The figure from a job's folder; the numbers from the engine, with controls."""
    return Section({"layers.png": _figure(run)}, {"layers": numbers_of(material, way)})


def numbers_of(material: Material, way: ArticleWay) -> dict[str, dict[str, Any]]:
    """B's unit, place and window; ours against the article's way; and how far A and B are their layer's."""
    specs = [f"{pool}:{selection}" for pool in way.pools for selection in ("all", "max")]
    ascent = material.net.forward(material.x_NCHW, specs)
    results = {str(result.spec): result for result in material.net.project_down(ascent)}
    controls = {str(of.reconstruction.spec): of for of in material.net.controls.of(ascent)}
    numbers = {}
    for pool in way.pools:
        a, b = results[f"{pool}:all"], results[f"{pool}:max"]
        map_NCHW = way.map_NCHW(pool)
        theirs_NCHW = way.down(pool, map_NCHW)
        exchanged_NCHW = way.down(pool, map_NCHW.roll(map_NCHW.shape[1] // 2, dims=1))
        window, control = b.window, controls[f"{pool}:max"]
        theirs_b_CHW = way.down(pool, way.strongest_NCHW(pool))[0]
        seen_CHW = theirs_b_CHW[:, window.top : window.bottom, window.left : window.right]
        numbers[pool] = {
            "unit": b.unit,
            "activation": rounded(b.activation or 0.0),
            "width_px": window.right - window.left,
            "height_px": window.bottom - window.top,
            "window": [window.left, window.top, window.right, window.bottom],
            "a_like_photograph": round(similarity(a.pixels_CHW, material.x_NCHW[0]), 3),
            "a_like_exchanged_units": round(similarity(theirs_NCHW, exchanged_NCHW), 3),
            "b_like_other_unit": round(control.other_unit_similarity, 3),
            "b_like_random_weights": round(control.random_weights_similarity, 3),
            "a_against_article": _difference(a.pixels_CHW, theirs_NCHW[0]),
            "b_against_article": _difference(b.pixels_CHW, seen_CHW),
        }
    return numbers


def _difference(ours_CHW: torch.Tensor, theirs_CHW: torch.Tensor) -> float:
    """Relative, as a power of ten that it does not reach: its digits are rounding's."""
    relative = float((ours_CHW - theirs_CHW).double().norm() / theirs_CHW.double().norm())
    return next(bound for bound in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0) if relative < bound)


def _figure(run: FinishedRun) -> Image.Image:
    sheet = Sheet(columns=len(POOLS), rows=4)
    photograph = run.photograph()
    for column, pool in enumerate(POOLS):
        row = run.rows[f"{pool}:max"]
        window = run.window(f"{pool}:max")
        size = f"{row['right'] - row['left']} x {row['bottom'] - row['top']} px"
        sheet.heading(column, pool)
        sheet.put(column, 0, run.picture(f"{pool}:all"), "A: the whole map")
        sheet.put(column, 1, marked(photograph, [window], [""]), f"B's window, {size}")
        sheet.put(column, 2, run.picture(f"{pool}:max"), f"B: unit {row['unit']}")
        sheet.put(column, 3, photograph.crop(window), "what the window saw")
    return sheet.figure
