"""The network: a VGG trunk's kernels, ready for the way up and for the way down.

The step back through a convolution is a transposed convolution without bias. It is computed as an ordinary
one (as it always can be: V. Dumoulin, F. Visin, arXiv 1603.07285, sections 4.2 and 4.3), with the kernel
flipped in both directions and its channel axes swapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.contract.architectures import Layer, layers_of
from worker.contract.errors import WeightsError
from worker.deconv.geometry import Padding

_ONEDNN_CONVOLUTION = torch.ops.mkldnn._convolution_pointwise
_ONEDNN_ADD_CONVOLUTION = torch.ops.mkldnn._convolution_pointwise_.binary

_CHANNELS_IN_ORDER = 256
"""With AVX-512, oneDNN adds over more input channels than some 300 in an order that depends on the size of
the input, and a window would differ from the whole map in its last bits. Of these it does not."""


Kernel = tuple[Tensor, ...]
"""A 3 x 3 kernel, OIHW, in one piece or cut by input channels."""


@dataclass(frozen=True)
class Convolution:
    """One 3 x 3 convolution. `up` and `bias_O` lead up, `back` leads down; both as `convolve` takes them.

    `kernel_OIHW` is the kernel in one piece.
    """

    layer: Layer
    kernel_OIHW: Tensor = field(repr=False)
    bias_O: Tensor = field(repr=False)
    up: Kernel = field(repr=False)
    back: Kernel = field(repr=False)


@dataclass(frozen=True)
class Block:
    """Convolutions, each followed by a ReLU, and the max-pool that ends them. `number` from 1 to 5."""

    number: int
    convolutions: tuple[Convolution, ...]
    pool: Layer

    def depth_to(self, index: int) -> int:
        """How many of the block's convolutions lead to layer `index` of it: to its pool, all."""
        return min((index - self.convolutions[0].layer.index) // 2 + 1, len(self.convolutions))


@dataclass(frozen=True)
class Trunk:
    """All blocks of a model, on one device in one data type."""

    model: str
    blocks: tuple[Block, ...]

    @classmethod
    def build(
        cls, model: str, state: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype = torch.float32
    ) -> Trunk:
        """Take `features`-style weights: `state` holds OIHW for `0.weight`, O for `0.bias`, and so on.

        Raises WeightsError.
        """
        layers = layers_of(model)
        blocks = []
        for pool in (layer for layer in layers if layer.kind == "pool"):
            convs = [layer for layer in layers if layer.kind == "conv" and layer.block == pool.block]
            blocks.append(
                Block(pool.block, tuple(_convolution(layer, state, device, dtype) for layer in convs), pool)
            )
        return cls(model, tuple(blocks))

    @property
    def device(self) -> torch.device:
        """Where the kernels are."""
        return self.blocks[0].convolutions[0].kernel_OIHW.device

    @property
    def dtype(self) -> torch.dtype:
        """The kernels' data type."""
        return self.blocks[0].convolutions[0].kernel_OIHW.dtype


def convolve(
    x_NCHW: Tensor, kernel: Kernel, bias_O: Tensor | None, padding: Padding, *, rectify: bool
) -> Tensor:
    """A 3 x 3 convolution with exactly this padding, and a ReLU after it if `rectify`.

    On the CPU in float32 each value of the result has the same bits, however large the input is and
    however many images it has.

    The result is N, O, H + top + bottom - 2, W + left + right - 2.
    """
    if set(padding) == {1}:
        edge = [1, 1]
    else:
        # The kernel's own padding stays 0 or 1: with 2, oneDNN adds in another order, and a window
        # would differ from the whole map in its last bit.
        x_NCHW = F.pad(x_NCHW, tuple(padding))
        edge = [0, 0]
    if x_NCHW.device.type == "cpu" and x_NCHW.dtype == torch.float32:
        return _convolve_in_order(x_NCHW, kernel, bias_O, edge, rectify=rectify)
    out_NCHW = F.conv2d(x_NCHW, kernel[0], bias_O, padding=edge)
    return out_NCHW.relu_() if rectify else out_NCHW


def _convolve_in_order(
    x_NCHW: Tensor, kernel: Kernel, bias_O: Tensor | None, edge: list[int], *, rectify: bool
) -> Tensor:
    # conv2d hands small inputs to another kernel, with the same effect as that of AVX-512. Called by name, it
    # is always the same one; and this name does the ReLU while a value is still in a register.
    how = (edge, [1, 1], [1, 1], 1)
    parts_NCHW = torch.split(x_NCHW, [part_OIHW.shape[1] for part_OIHW in kernel], dim=1)
    inputs_NCHW = [part_NCHW.contiguous(memory_format=torch.channels_last) for part_NCHW in parts_NCHW]
    fused = rectify and len(kernel) == 1
    after = "relu" if fused else "none"
    out_NCHW: Tensor = _ONEDNN_CONVOLUTION(inputs_NCHW[0], kernel[0], bias_O, *how, after, [], "")
    for input_NCHW, part_OIHW in zip(inputs_NCHW[1:], kernel[1:], strict=True):
        _ONEDNN_ADD_CONVOLUTION(out_NCHW, input_NCHW, part_OIHW, None, *how, "add", 1.0, None, [], None)
    return out_NCHW.relu_() if rectify and not fused else out_NCHW


def _convolution(
    layer: Layer, state: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
) -> Convolution:
    names = (f"{layer.index}.weight", f"{layer.index}.bias")
    shapes = ((layer.channels, layer.in_channels, 3, 3), (layer.channels,))
    for name, shape in zip(names, shapes, strict=True):
        if name not in state or tuple(state[name].shape) != shape:
            found = f"has shape {tuple(state[name].shape)}" if name in state else "is missing"
            raise WeightsError(
                f"weights of {layer.name}: {name} {found}, {shape} is needed; are they another model's?"
            )
        if not state[name].isfinite().all():
            # A ReLU may turn NaN into 0: it would not be seen again.
            raise WeightsError(
                f"weights of {layer.name}: {name} holds NaN or infinite values; take a sound file"
            )
    kernel_OIHW, bias_O = (state[name].to(device=device, dtype=dtype) for name in names)
    kernel_OIHW = kernel_OIHW.contiguous(memory_format=torch.channels_last)
    back_OIHW = kernel_OIHW.flip(2, 3).transpose(0, 1)
    return Convolution(layer, kernel_OIHW, bias_O.contiguous(), _cut(kernel_OIHW), _cut(back_OIHW))


def _cut(kernel_OIHW: Tensor) -> Kernel:
    """The kernel in pieces of which oneDNN adds in one order, where it computes; else in one."""
    onednn = kernel_OIHW.device.type == "cpu" and kernel_OIHW.dtype == torch.float32
    n_channels = kernel_OIHW.shape[1]
    if onednn and torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        n_channels = min(n_channels, _CHANNELS_IN_ORDER)
    parts = torch.split(kernel_OIHW, n_channels, dim=1)
    return tuple(part.contiguous(memory_format=torch.channels_last) for part in parts)
