"""Makes docs/article.md: runs what its sections show, draws the figures, and fills in the numbers.

`python -m docs.figures.article`, which `make article` calls, writes into docs/. The page's words stand in
docs/article/page.template, where `{pool[energy_kept_percent]}` is a number of docs/article/numbers.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from docs.figures import article_atlas, article_convolution, article_layers, article_pool, readme
from docs.figures.article_way import ArticleWay
from docs.figures.commands import FinishedAudit, FinishedRun, deconvoy
from docs.figures.drawing import save
from docs.figures.section import POOLS, WEIGHTS, Material, Section
from tests.photographs import photographs

DOCS = Path(__file__).parents[1]
TEMPLATE = DOCS / "article" / "page.template"
MORE_PHOTOGRAPHS = ("brick", "camera", "coins", "grass", "gravel", "moon", "page", "text")
"""Beside the demo's: textures and letters, so that more units find something. All are scikit-image's."""
BATCH_SIZE = "8"
"""Given, and not left to the worker: another batch may round otherwise."""


def build(docs: Path) -> None:
    """Write `article.md`, and the folder `article` with figures and numbers.json, into the folder `docs`."""
    (docs / "article").mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="deconvoy-article-") as temporary:
        sections = _sections(Path(temporary), docs)
    numbers = {name: value for section in sections for name, value in section.numbers.items()}
    for section in sections:
        for name, figure in section.figures.items():
            save(figure, docs / "article" / name)
    text = json.dumps(numbers, indent=2) + "\n"
    (docs / "article" / "numbers.json").write_text(text, encoding="utf-8")
    (docs / "article.md").write_text(page(numbers), encoding="utf-8")


def page(numbers: Mapping[str, Any]) -> str:
    """The page's text with these numbers. Raises KeyError where it names one that is not there."""
    return TEMPLATE.read_text(encoding="utf-8").format_map(numbers)


def _sections(work: Path, docs: Path) -> list[Section]:
    cat = photographs()[0]
    common = ("--weights", WEIGHTS, "--batch-size", BATCH_SIZE, "--out", str(work / "out"))
    run = FinishedRun(deconvoy("run", str(cat), *common))
    save(readme.draw_figure(run), docs / "figure.png")
    sources = [*photographs(), *(cat.with_name(f"{name}.png") for name in MORE_PHOTOGRAPHS)]
    n_patches = article_atlas.cut_patches(sources, work / "patches")
    layers = [word for layer in article_atlas.SHOWN for word in ("--layer", layer)]
    audit = FinishedAudit(
        deconvoy("audit", str(work / "patches"), "--local", "--resize", "native", *layers, *common)
    )
    material = Material.of(cat)
    way = ArticleWay(material.net.trunk, material.x_NCHW, POOLS)
    return [
        article_pool.make(material),
        article_convolution.make(material, way),
        article_layers.make(run, material, way),
        article_atlas.make(audit, len(sources), n_patches),
    ]


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS)
