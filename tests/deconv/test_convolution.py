"""A convolution on the CPU gives the same bits for a piece of its input as for the whole."""

from __future__ import annotations

import pytest
import torch

from tests.deconv.common import net
from worker.deconv.geometry import Padding
from worker.deconv.trunk import Kernel, convolve

KERNELS: dict[tuple[int, int], Kernel] = {}
for convolution in (each for block in net("random:3").trunk.blocks for each in block.convolutions):
    for kernel in (convolution.up, convolution.back):
        KERNELS[sum(part.shape[1] for part in kernel), kernel[0].shape[0]] = kernel

LARGEST = 42
PIECES = [(1, 1, 1), (2, 3, 5), (1, 6, 12), (1, 7, 13), (2, 14, 14), (1, 17, 17), (1, 16, 28), (1, 29, 30)]
NONE = Padding(0, 0, 0, 0)


@pytest.mark.parametrize("channels", sorted(KERNELS))
def test_values_do_not_depend_on_how_much_is_computed_beside_them(channels: tuple[int, int]) -> None:
    kernel = KERNELS[channels]
    generator = torch.Generator().manual_seed(0)
    x_NCHW = torch.randn(2, channels[0], LARGEST, LARGEST, generator=generator)
    whole_NCHW = convolve(x_NCHW, kernel, None, NONE, rectify=True)
    assert float(whole_NCHW.count_nonzero()) > 0
    for n, height, width in PIECES:
        piece_NCHW = convolve(x_NCHW[:n, :, : height + 2, : width + 2], kernel, None, NONE, rectify=True)
        assert torch.equal(piece_NCHW, whole_NCHW[:n, :, :height, :width]), (n, height, width)


@pytest.mark.parametrize("channels", [(3, 64), (512, 512)])
def test_pieces_are_added_bias_once_and_rectified_last(channels: tuple[int, int]) -> None:
    kernel = KERNELS[channels]
    generator = torch.Generator().manual_seed(0)
    x_NCHW = torch.randn(1, channels[0], 6, 7, generator=generator)
    bias_O = torch.randn(channels[1], generator=generator)
    exact_NCHW = torch.nn.functional.conv2d(
        x_NCHW.double(), torch.cat(kernel, 1).double(), bias_O.double(), padding=1
    )
    signed_NCHW = convolve(x_NCHW, kernel, bias_O, Padding(1, 1, 1, 1), rectify=False)
    assert torch.allclose(signed_NCHW.double(), exact_NCHW, atol=1e-5)
    assert torch.equal(
        convolve(x_NCHW, kernel, bias_O, Padding(1, 1, 1, 1), rectify=True), signed_NCHW.relu()
    )
