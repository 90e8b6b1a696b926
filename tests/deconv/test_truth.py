"""The engine = a slow second implementation from the definition = Captum, with trained and random weights."""

from __future__ import annotations

import pytest
import torch
from captum.attr import NeuronDeconvolution
from torch import Tensor, nn

from tests.deconv.common import net, on_whole_image, photograph, relative_difference, weights
from tests.length import AT_LENGTH
from tests.oracle import Oracle, trunk_module
from worker.contract.architectures import layers_by_name, layers_of
from worker.contract.specs import parse_spec

POOLS = [f"pool{block}" for block in range(1, 6)]


def _input(name: str, number: int, height: int, width: int) -> Tensor:
    # Both sides run in the same memory layout, so that no near-tie of a pool falls another way.
    x_NCHW = net(name).normalise(photograph(number, height, width))
    return x_NCHW.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("name", "height", "width"),
    [
        ("hed", 224, 224),
        ("hed", 33, 47),
        ("hed", 75, 64),
        ("random:3", 33, 47),
        ("random:3", 97, 131),
        pytest.param("hed", 300, 411, marks=AT_LENGTH),
        pytest.param("random:3", 300, 411, marks=AT_LENGTH),
    ],
)
def test_equals_the_slow_implementation_after_every_pool(name: str, height: int, width: int) -> None:
    x_NCHW = _input(name, height % 4, height, width)
    specs = [f"{pool}:{selection}" for pool in POOLS for selection in ("all", "top:2")]
    results = net(name).project(x_NCHW, specs)
    for pool in POOLS:
        oracle = Oracle(weights(name).state, x_NCHW, layers_by_name()[pool].index)
        for result in (r for r in results if r.spec.layer.name == pool):
            if result.spec.is_whole_map:
                expected = oracle.down(oracle.map_NCHW)[0]
            else:
                assert result.unit is not None
                assert result.y is not None
                assert result.x is not None
                assert (result.y, result.x, result.activation) == pytest.approx(
                    oracle.strongest(0, result.unit), rel=1e-5
                )
                expected = oracle.down(oracle.seed(0, result.unit, result.y, result.x))[0]
            assert relative_difference(on_whole_image(result, height, width), expected) < 1e-5, str(
                result.spec
            )


@pytest.mark.parametrize("layer", [layer.name for layer in layers_of()])
@pytest.mark.parametrize("name", ["hed", "random:3"])
def test_equals_the_slow_implementation_at_every_layer(name: str, layer: str) -> None:
    height, width = 50, 61
    x_NCHW = _input(name, 1, height, width)
    oracle = Oracle(weights(name).state, x_NCHW, layers_by_name()[layer].index)
    whole, single = net(name).project(x_NCHW, [f"{layer}:all", f"{layer}:max"])
    assert relative_difference(on_whole_image(whole, height, width), oracle.down(oracle.map_NCHW)[0]) < 1e-5
    assert single.activation == pytest.approx(float(oracle.map_NCHW.max()), rel=1e-5)
    seed = torch.where(oracle.map_NCHW == oracle.map_NCHW.max(), oracle.map_NCHW, 0)
    assert int((seed != 0).sum()) == 1
    assert relative_difference(on_whole_image(single, height, width), oracle.down(seed)[0]) < 1e-5


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations")
@pytest.mark.filterwarnings("ignore:.*non-full backward hook:FutureWarning")
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("name", ["hed", "random:3"])
def test_equals_captum(name: str, pool: str) -> None:
    height, width = 75, 90
    x_NCHW = _input(name, 0, height, width).requires_grad_()
    layer = layers_by_name()[pool]
    cut = trunk_module(weights(name).state, layer.index + 1)
    whole, *units = net(name).project(x_NCHW.detach(), [f"{pool}:all", f"{pool}:top:4"])

    captum = NeuronDeconvolution(cut, cut[-1])
    for result in units:
        by_captum = (
            captum.attribute(x_NCHW, (result.unit, result.y, result.x)).detach()[0] * result.activation
        )
        assert relative_difference(on_whole_image(result, height, width), by_captum) < 1e-5

    assert relative_difference(whole.pixels_CHW, _all_by_autograd(cut, x_NCHW)[0]) < 1e-5


def _rectify_the_signal(
    _module: nn.Module, _grad_in: object, grad_out: tuple[Tensor, ...] | Tensor
) -> tuple[Tensor]:
    return (grad_out[0].relu(),)


def _all_by_autograd(cut: nn.Sequential, x_NCHW: Tensor) -> Tensor:
    """`all` as a gradient: each ReLU's is replaced by a ReLU of the signal, the seed is the map."""
    handles = [
        module.register_full_backward_hook(_rectify_the_signal)
        for module in cut
        if isinstance(module, nn.ReLU)
    ]
    y_NCHW = cut(x_NCHW)
    (pixels_NCHW,) = torch.autograd.grad(y_NCHW, x_NCHW, grad_outputs=y_NCHW.detach())
    for handle in handles:
        handle.remove()
    return pixels_NCHW


def test_the_four_selections_agree_where_they_name_the_same_activation() -> None:
    x_NCHW = _input("hed", 0, 80, 70)
    strongest, *top = net("hed").project(x_NCHW, ["pool4:max", "pool4:top:3"])
    named = net("hed").project(x_NCHW, [f"pool4:unit:{top[2].unit},{top[0].unit}"])
    assert strongest.unit == top[0].unit
    assert torch.equal(strongest.pixels_CHW, top[0].pixels_CHW)
    assert [r.unit for r in named] == [top[2].unit, top[0].unit]
    assert torch.equal(named[0].pixels_CHW, top[2].pixels_CHW)
    activations = [r.activation for r in top]
    assert activations == sorted(activations, key=lambda a: -(a or 0))


def test_results_come_by_image_then_spec_then_unit() -> None:
    x_NCHW = torch.cat([_input("random:3", number, 40, 40) for number in range(3)])
    results = net("random:3").project(x_NCHW, ["pool2:top:2", "pool1:all"])
    assert [(r.image, str(r.spec)) for r in results] == [
        (image, spec) for image in range(3) for spec in ("pool2:top:2", "pool2:top:2", "pool1:all")
    ]


def test_an_image_gives_the_same_alone_and_in_a_batch() -> None:
    x_NCHW = torch.cat([_input("hed", number, 64, 48) for number in range(3)])
    together = net("hed").project(x_NCHW, ["pool3:all", "pool5:max"])
    alone = net("hed").project(x_NCHW[1:2], ["pool3:all", "pool5:max"])
    for a, b in zip(alone, together[2:4], strict=True):
        assert torch.equal(a.pixels_CHW, b.pixels_CHW)


def test_specs_given_as_text_and_parsed_mean_the_same() -> None:
    x_NCHW = _input("random:3", 0, 40, 40)
    (a,) = net("random:3").project(x_NCHW, ["9:max"])
    (b,) = net("random:3").project(x_NCHW, [parse_spec("pool2:max")])
    assert torch.equal(a.pixels_CHW, b.pixels_CHW)


def test_a_spec_that_is_given_twice_counts_once() -> None:
    x_NCHW = _input("random:3", 0, 40, 40)
    results = net("random:3").project(x_NCHW, ["pool2:max", "9:max", "pool1:all", "pool2:max"])
    assert [str(result.spec) for result in results] == ["pool2:max", "pool1:all"]
