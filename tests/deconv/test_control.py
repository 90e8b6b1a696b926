"""The control of Nie et al.: what it says where the answer can be known beforehand."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tests.deconv.common import net, photograph, weights
from worker.deconv import Controls, Deconvnet
from worker.deconv.weights import load_weights


def _cosine(a: Tensor, b: Tensor) -> float:
    return float((a.double() * b.double()).sum() / (a.double().norm() * b.double().norm()))


def test_one_layer_down_a_similarity_is_that_of_the_kernels() -> None:
    trained, untrained = weights("hed").state["0.weight"], load_weights("random:5").state["0.weight"]
    x_NCHW = net("hed").normalise(photograph(0, 64, 64))
    (control,) = Controls(net("hed"), seed=5).of(net("hed").forward(x_NCHW, ["conv1_1:max"]))
    unit, other = control.reconstruction.unit, control.other_unit.unit
    assert unit is not None
    assert other == (unit + 32) % 64
    assert control.reconstruction.window.right - control.reconstruction.window.left == 3  # not cut by an edge
    assert abs(control.other_unit_similarity - _cosine(trained[unit], trained[other])) < 1e-6
    assert abs(control.random_weights_similarity - _cosine(trained[unit], untrained[unit])) < 1e-6


def test_units_that_are_all_the_same_are_not_told_apart() -> None:
    state = dict(weights("random:3").state)
    state["5.weight"] = state["5.weight"][:1].expand(128, -1, -1, -1)
    state["5.bias"] = state["5.bias"][:1].expand(128)
    same = Deconvnet(replace(weights("random:3"), state=state))
    ascent = same.forward(torch.randn(2, 3, 48, 48), ["conv2_1:top:4"])
    controls = Controls(same).of(ascent)
    assert len(controls) == 8
    assert all(control.other_unit_similarity > 1 - 1e-9 for control in controls)
    assert all(control.random_weights_similarity < 0.99 for control in controls)


def test_the_control_differs_in_nothing_but_the_kernels() -> None:
    ascent = net("hed").forward(net("hed").normalise(photograph(1, 96, 80)), ["pool3:top:3", "pool4:all"])
    expected = [r for r in net("hed").project_down(ascent) if r.unit is not None]
    controls = Controls(net("hed")).of(ascent)
    assert len(controls) == 3
    for control, result in zip(controls, expected, strict=True):
        assert torch.equal(control.reconstruction.pixels_CHW, result.pixels_CHW)
        for other in (control.other_unit, control.random_weights):
            assert (other.y, other.x, other.activation) == (result.y, result.x, result.activation)
            assert other.window == result.window
            assert not torch.equal(other.pixels_CHW, result.pixels_CHW)
