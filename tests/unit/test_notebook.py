"""What a notebook shows: a result draws itself as the store's picture, and says in a line what it is."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from producer.jobs import prepare
from producer.planning import make_plan
from tests.photographs import photographs
from worker.deconv import Deconvnet, Reconstruction
from worker.deconv.weights import load_weights
from worker.pipeline.picture import encode


@pytest.fixture(scope="module")
def net() -> Deconvnet:
    return Deconvnet.load("random:0", device="cpu")


@pytest.fixture(scope="module")
def x_NCHW(net: Deconvnet) -> torch.Tensor:
    noise = torch.Generator().manual_seed(0)
    return net.normalise(torch.randint(0, 256, (2, 40, 48, 3), dtype=torch.uint8, generator=noise))


@pytest.fixture(scope="module")
def results(net: Deconvnet, x_NCHW: torch.Tensor) -> list[Reconstruction]:
    return net.project(x_NCHW, ["pool2:all", "pool2:max", "conv1_2:unit:7"])


def test_a_result_is_drawn_as_the_store_draws_it(net: Deconvnet, results: list[Reconstruction]) -> None:
    for result in results:
        stored = encode(result.pixels_CHW.numpy(), net.normalisation.pixel_std_C, "png").data
        with Image.open(io.BytesIO(result._repr_png_())) as shown, Image.open(io.BytesIO(stored)) as picture:
            assert shown.format == "PNG"
            assert np.array_equal(np.asarray(shown), np.asarray(picture))


def test_a_result_says_spec_unit_place_activation_window_and_shape(results: list[Reconstruction]) -> None:
    whole, strongest = results[:2]
    assert repr(whole) == (
        "<Reconstruction pool2:all: image 0, window (0, 0) to (48, 40), pixels_CHW 3 x 40 x 48>"
    )
    left, top, right, bottom = strongest.window
    assert repr(strongest) == (
        f"<Reconstruction pool2:max: image 0, unit {strongest.unit} at y {strongest.y}, x {strongest.x}, "
        f"activation {strongest.activation:.4g}, window ({left}, {top}) to ({right}, {bottom}), "
        f"pixels_CHW 3 x {bottom - top} x {right - left}>"
    )


def test_values_that_are_not_finite_are_named(results: list[Reconstruction]) -> None:
    assert repr(replace(results[0], nonfinite=3)).endswith(", pixels_CHW 3 x 40 x 48, 3 not finite>")


def test_a_network_and_what_it_gives_say_in_a_line_what_they_are(
    net: Deconvnet, x_NCHW: torch.Tensor
) -> None:
    assert repr(net) == "<Deconvnet vgg16, weights random:0, fp32 on cpu>"
    ascent = net.forward(x_NCHW, ["pool1:all", "pool3:top:2"])
    assert repr(ascent) == "<Ascent of 2 images, 40 x 48: pool1:all, pool3:top:2; 4 seeds>"
    (layer,) = {spec.layer for spec in ascent.specs if spec.layer.name == "pool3"}
    assert repr(net.profile(x_NCHW, [layer])) == "{'pool3': <Profile of 2 images, 256 units>}"
    assert "tensor" not in repr(ascent.up) + repr(net.trunk) + repr(load_weights("random:0"))


def test_a_job_says_in_a_line_what_it_is(tmp_path: Path) -> None:
    sources = [str(path) for path in photographs()[:2]]
    handle = prepare(sources, str(tmp_path), make_plan({"weights": "random:0", "name": "two"}), local=True)
    assert repr(handle) == f"<JobHandle of job {handle.id}: 2 images, at {tmp_path}/{handle.id}>"
