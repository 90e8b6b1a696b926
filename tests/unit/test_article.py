"""docs/article.md: each number that it states is computed again, and its words hold in these numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from docs.figures import article, article_convolution, article_layers, article_pool
from docs.figures.article_atlas import MIN_PHOTOGRAPHS, N_TOP, choose
from docs.figures.article_way import ArticleWay, transposed_layer
from docs.figures.section import POOLS, Material, rounded
from tests.length import at_length
from tests.oracle import Oracle
from tests.photographs import photographs
from worker.contract.specs import parse_spec
from worker.deconv import Deconvnet
from worker.deconv.weights import load_weights

FOLDER = article.DOCS / "article"
PAGE = (article.DOCS / "article.md").read_text(encoding="utf-8")
NUMBERS: dict[str, Any] = json.loads((FOLDER / "numbers.json").read_text(encoding="utf-8"))
SHALLOW = ("pool1", "pool2")
"""What is computed again in a few seconds; `make chaos` does the others."""
ONE_IN_THE_LAST_DIGIT = 0.011
"""Of three digits, at most; another processor rounds otherwise, and a number near a half tips over."""
NO_NUMBER = re.compile(
    r"```.*?```|`[^`]*`|\]\([^)]*\)|\{[^}]*\}|^#.*|arXiv \d+\.\d+|VGG-16|Figure 2|section 5|\b4-2|_その1"
    r"|\d x \d|stride of \d|seed 0|Specificity is 1 minus|: 1 is the same picture, 0 has nothing",
    re.MULTILINE | re.DOTALL,
)
"""Digits that state nothing measured: names, code, addresses, shapes, and definitions."""


@pytest.fixture(scope="module")
def material() -> Material:
    return Material.of(photographs()[0])


@pytest.fixture(scope="module")
def shallow(material: Material) -> ArticleWay:
    return ArticleWay(material.net.trunk, material.x_NCHW, SHALLOW)


def leaves(numbers: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    """Each number by where it stands."""
    for name, value in numbers.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}{name}.")
        elif isinstance(value, list):
            yield from leaves(dict(zip(map(str, range(len(value))), value, strict=True)), f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def assert_same(found: Mapping[str, Any], recorded: Mapping[str, Any]) -> None:
    expected = dict(leaves(recorded))
    assert dict(leaves(found)) == pytest.approx(expected, rel=ONE_IN_THE_LAST_DIGIT, abs=1e-9)


def assert_same_layers(found: Mapping[str, Mapping[str, Any]], pools: Sequence[str]) -> None:
    for pool in pools:
        recorded = NUMBERS["layers"][pool]
        likenesses = {name for name in recorded if "_like_" in name}
        against = {name for name in recorded if name.endswith("_against_article")}
        # A switch that rounding flips moves a likeness by a thousandth. How far rounding itself reaches is
        # the processor's affair: the most that both may be apart is asked, not the same value.
        assert {name: found[pool][name] for name in likenesses} == pytest.approx(
            {name: recorded[name] for name in likenesses}, abs=0.005
        )
        assert all(found[pool][name] <= 0.01 for name in against)
        assert (found[pool]["unit"], found[pool]["window"]) == (recorded["unit"], recorded["window"])
        rest = set(recorded) - likenesses - against
        assert_same({name: found[pool][name] for name in rest}, {name: recorded[name] for name in rest})


def test_the_page_is_its_template_with_the_recorded_numbers() -> None:
    assert article.page(NUMBERS) == PAGE, "change docs/article/page.template, then make article"


def test_the_template_states_no_number_of_its_own() -> None:
    words = NO_NUMBER.sub("", article.TEMPLATE.read_text(encoding="utf-8"))
    assert re.findall(r"[^\n]{0,30}\d[^\n]{0,30}", words) == []


def test_pooling_and_unpooling_the_photograph_gives_the_recorded_numbers(material: Material) -> None:
    assert_same(article_pool.numbers_of(material)["pool"], NUMBERS["pool"])
    assert NUMBERS["pool"]["places_kept_percent"] == 25
    assert NUMBERS["pool"]["pooled_again_difference"] == 0


def test_the_sketch_is_what_pooling_by_hand_gives(material: Material) -> None:
    by_hand: dict[str, Any] = {
        "input": [[1, 2, 5], [3, 4, 0], [6, 1, 2]],
        "pooled": [[4, 5], [6, 4]],
        "unpooled": [[0, 0, 5], [0, 4, 0], [6, 0, 0]],
        "changed": [[10, 20], [30, 40]],
        "changed_unpooled": [[0, 0, 20], [0, [10, 40], 0], [30, 0, 0]],
    }
    assert article_pool.numbers_of(material)["sketch"] == NUMBERS["sketch"] == by_hand
    x_NCHW = torch.tensor(by_hand["input"], dtype=torch.float32)[None, None]
    _, switches_NCHW = torch.nn.functional.max_pool2d(x_NCHW, 2, 1, return_indices=True)
    down_NCHW = torch.nn.functional.max_unpool2d(
        torch.tensor(by_hand["changed"], dtype=torch.float32)[None, None], switches_NCHW, [2, 2], [1, 1]
    )
    assert down_NCHW[0, 0, 1, 1] in (10, 40)
    assert down_NCHW.sum() - down_NCHW[0, 0, 1, 1] == 50


def test_the_convolution_and_back_gives_the_recorded_numbers(material: Material) -> None:
    both = article_convolution.ThereAndBack.of(material)
    assert_same(article_convolution.numbers_of(both), NUMBERS["convolution"])


def test_the_default_bias_adds_itself_to_each_colour_and_nothing_else(material: Material) -> None:
    both = article_convolution.ThereAndBack.of(material)
    added_NCHW = both.back_NCHW.double() + both.bias_C.double()[:, None, None]
    # The values are in the hundreds: what is left is float32's rounding of these.
    torch.testing.assert_close(both.biased_NCHW.double(), added_NCHW, rtol=1e-6, atol=1e-3)
    assert (both.bias_C.abs() > 0.01).all()
    assert (both.bias_C.abs() <= both.bound).all()


def test_many_default_biases_lie_within_the_bound_and_reach_it(material: Material) -> None:
    convolution = material.net.trunk.blocks[0].convolutions[0]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = [transposed_layer(convolution, biased=True) for _ in range(200)]
    largest = max(float(layer.state_dict()["bias"].abs().max()) for layer in layers)
    assert 0.98 * NUMBERS["convolution"]["bias_bound"] < largest < 1.01 * NUMBERS["convolution"]["bias_bound"]


def test_biases_in_all_layers_give_the_recorded_numbers(shallow: ArticleWay) -> None:
    recorded = {pool: NUMBERS["bias"][pool] for pool in SHALLOW}
    assert_same(article_convolution.bias_numbers(shallow), recorded)


def test_a_and_b_give_the_recorded_numbers(material: Material, shallow: ArticleWay) -> None:
    assert_same_layers(article_layers.numbers_of(material, shallow), SHALLOW)


def test_the_article_way_without_bias_is_the_oracle_of_the_tests() -> None:
    weights = load_weights("random:0")
    net = Deconvnet(weights)
    x_NCHW = net.normalise(torch.randint(0, 256, (1, 64, 48, 3), dtype=torch.uint8))
    way = ArticleWay(net.trunk, x_NCHW, ["pool3"])
    oracle = Oracle(weights.state, x_NCHW.contiguous(), parse_spec("pool3:all").layer.index)

    torch.testing.assert_close(way.map_NCHW("pool3"), oracle.map_NCHW)
    for seed_NCHW in (way.map_NCHW("pool3"), way.strongest_NCHW("pool3")):
        torch.testing.assert_close(way.down("pool3", seed_NCHW), oracle.down(seed_NCHW))
    assert int((way.strongest_NCHW("pool3") != 0).sum()) == 1


def test_what_the_page_says_in_words_holds_in_its_numbers() -> None:
    layers, bias, bands = NUMBERS["layers"], NUMBERS["bias"], NUMBERS["convolution"]
    assert layers["pool3"]["window"][2:] == [224, 224]
    assert layers["pool4"]["window"][:2] == [0, 0]
    assert all(layers[pool]["a_like_exchanged_units"] < 0.6 for pool in POOLS[:2])
    assert all(layers[pool]["b_like_other_unit"] < 0.6 for pool in POOLS[:2])
    assert all(layers[pool]["a_like_exchanged_units"] > 0.9 for pool in POOLS[2:])
    assert all(layers[pool]["b_like_other_unit"] > 0.9 for pool in POOLS[2:])
    assert [layers[pool]["width_px"] for pool in POOLS] == sorted(layers[pool]["width_px"] for pool in POOLS)
    assert bias["pool4"]["outside_percent"] > 50
    assert all(of["zeros_give_without"] == 0 < of["zeros_give_at_most"] for of in bias.values())
    assert bands["difference"] == pytest.approx(bands["bias"], rel=ONE_IN_THE_LAST_DIGIT)
    assert max(bands["gains"][:2]) < 0.15 * min(bands["gains"][-2:])
    assert max(map(abs, bands["bias"])) < 0.001 * bands["rms_back"]
    assert NUMBERS["pool"]["mean_pooled"] > NUMBERS["pool"]["mean_before"]
    assert (
        NUMBERS["atlas"]["pool2"]["median_specificity"] > 2 * NUMBERS["atlas"]["pool3"]["median_specificity"]
    )
    assert (MIN_PHOTOGRAPHS, N_TOP) == (4, 9)
    assert [parse_spec(f"{pool}:all").layer.index for pool in POOLS] == [4, 9, 16, 23, 30]


def test_the_page_shows_every_figure_and_no_other_and_they_are_small() -> None:
    shown = set(re.findall(r"\]\(article/(\w+\.png)\)", PAGE))
    files = {path.name: path for path in FOLDER.glob("*.png")}
    assert shown == set(files)
    assert sum(path.stat().st_size for path in files.values()) < 800_000
    for path in files.values():
        with Image.open(path) as file:
            assert (file.format, file.mode) == ("PNG", "P")


def test_shown_units_are_the_most_specific_of_those_with_patches_from_enough_photographs() -> None:
    def winners(unit: int, n_photographs: int, n_rows: int = N_TOP) -> list[dict[str, Any]]:
        names = [f"/a/the-{rank % n_photographs}-0-128.png" for rank in range(n_rows)]
        return [{"layer": "pool2", "unit": unit, "image": name} for name in names]

    specificity = {0: 0.5, 1: 0.9, 2: 0.9, 3: 0.7, 4: 1.2, 5: 1.1}
    units = [{"layer": "pool2", "unit": unit, "specificity": value} for unit, value in specificity.items()]
    units.append({"layer": "pool3", "unit": 0, "specificity": 2.0})
    atlas = [row for unit in (0, 1, 2, 3) for row in winners(unit, MIN_PHOTOGRAPHS)]
    atlas += winners(4, MIN_PHOTOGRAPHS - 1)
    atlas += winners(5, MIN_PHOTOGRAPHS, N_TOP - 1)

    assert [unit.number for unit in choose("pool2", units, atlas)] == [1, 2, 3, 0]


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [(0.0, 3, 0.0), (0.0123456, 3, 0.0123), (-4.7356, 2, -4.7), (949.6, 3, 950), (99.96, 3, 100.0)],
)
def test_numbers_are_rounded_to_significant_digits(value: float, digits: int, expected: float) -> None:
    assert rounded(value, digits) == expected


@at_length
@pytest.mark.timeout(3600)
def test_make_article_gives_the_page_its_numbers_and_its_figures_again(tmp_path: Path) -> None:
    article.build(tmp_path)

    numbers = json.loads((tmp_path / "article" / "numbers.json").read_text(encoding="utf-8"))
    assert numbers.keys() == NUMBERS.keys()
    assert_same_layers(numbers["layers"], POOLS)
    for section in numbers.keys() - {"layers"}:
        assert_same(numbers[section], NUMBERS[section])
    assert numbers["atlas"]["pool2"]["shown"] == NUMBERS["atlas"]["pool2"]["shown"]
    assert numbers["atlas"]["pool3"]["shown"] == NUMBERS["atlas"]["pool3"]["shown"]
    pictures = [*FOLDER.glob("*.png"), article.DOCS / "figure.png"]
    for recorded_path in pictures:
        path = tmp_path / recorded_path.relative_to(article.DOCS)
        with Image.open(path) as file, Image.open(recorded_path) as recorded_file:
            here_HWC, there_HWC = (np.asarray(of.convert("RGB"), dtype=float) for of in (file, recorded_file))
        assert here_HWC.shape == there_HWC.shape
        # Another processor may flip a switch here and there, and the palette then has other colours nearby.
        assert np.abs(here_HWC - there_HWC).mean() < 2, path.name
