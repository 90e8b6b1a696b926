"""The certificate tells the truth: it is clean for the real network and notices a network that is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.deconv.common import net, weights
from worker.deconv import Deconvnet, certify
from worker.deconv.trunk import Trunk


@pytest.mark.parametrize("name", ["hed", "random:3"])
def test_here_windows_are_exact_and_the_fast_way_is_right(name: str) -> None:
    certificate = certify(net(name))
    assert certificate.zero_in_zero_out == 0
    assert certificate.windows_against_dense == 0
    assert certificate.fast_against_slow < 1e-5
    assert certificate.activation_again < 1e-5
    assert certificate.weights_sha256 == weights(name).info.sha256


def test_a_wrong_kernel_on_the_way_down_is_noticed() -> None:
    wrong = Deconvnet(weights("random:3"))
    wrong.trunk = _with_first_kernel_down(wrong.trunk, lambda back_OIHW: back_OIHW * 1.001)
    certificate = certify(wrong)
    assert certificate.fast_against_slow > 5e-4


def _with_first_kernel_down(trunk: Trunk, change: Callable[[Tensor], Tensor]) -> Trunk:
    first, *others = trunk.blocks
    convolution = first.convolutions[0]
    changed = dataclasses.replace(convolution, back=(change(*convolution.back),))
    block = dataclasses.replace(first, convolutions=(changed, *first.convolutions[1:]))
    return dataclasses.replace(trunk, blocks=(block, *others))


def test_bf16_computes_and_is_about_as_far_off_as_its_eight_bits_say() -> None:
    x_NCHW = torch.randn(1, 3, 48, 40, generator=torch.Generator().manual_seed(1))
    (exact,) = net("random:3").project(x_NCHW, ["relu1_2:all"])
    (rounded,) = Deconvnet(weights("random:3"), precision="bf16").project(x_NCHW, ["relu1_2:all"])
    difference = float((exact.pixels_CHW - rounded.pixels_CHW).abs().max() / exact.pixels_CHW.abs().max())
    assert rounded.pixels_CHW.dtype == torch.float32
    assert 1e-5 < difference < 0.05
