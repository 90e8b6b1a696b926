"""The article's way up and down: torch's own layers one after the other, each on the whole map.

It shares nothing with `worker.deconv` but the kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from worker.deconv.trunk import Convolution, Trunk

SEED = 0
"""Of the random biases."""


@dataclass(frozen=True)
class ArticleWay:
    """One image, N = 1, up to the deepest of `pools`, and maps of these pools down to pixels."""

    trunk: Trunk
    x_NCHW: Tensor
    pools: Sequence[str]

    @cached_property
    def _up(self) -> tuple[dict[str, Tensor], dict[int, Tensor]]:
        """The pools' maps by name, and torch's indices of each pool passed by block number."""
        maps, indices = {}, {}
        signal_NCHW = self.x_NCHW.contiguous()
        with torch.inference_mode():
            for block in self.trunk.blocks[: max(int(pool[-1]) for pool in self.pools)]:
                for convolution in block.convolutions:
                    signal_NCHW = conv_layer(convolution)(signal_NCHW).relu()
                signal_NCHW, indices[block.number] = nn.MaxPool2d(2, 2, return_indices=True)(signal_NCHW)
                maps[block.pool.name] = signal_NCHW
        return maps, indices

    def map_NCHW(self, pool: str) -> Tensor:
        """The feature map after a pool: the seed of A."""
        return self._up[0][pool]

    def strongest_NCHW(self, pool: str) -> Tensor:
        """The same with all but the one largest value set to zero: the seed of B."""
        map_NCHW = self.map_NCHW(pool)
        seed_NCHW = torch.zeros_like(map_NCHW)
        seed_NCHW.view(-1)[map_NCHW.argmax()] = map_NCHW.max()
        return seed_NCHW

    def down(self, pool: str, seed_NCHW: Tensor, *, biased: bool = False) -> Tensor:
        """Carry a seed down to pixels; `biased`: every transposed convolution as the article builds one."""
        signal_NCHW = seed_NCHW
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(SEED)
            for block in reversed(self.trunk.blocks[: int(pool[-1])]):
                signal_NCHW = nn.MaxUnpool2d(2, 2)(signal_NCHW, self._up[1][block.number])
                for convolution in reversed(block.convolutions):
                    signal_NCHW = transposed_layer(convolution, biased=biased)(signal_NCHW.relu())
        return signal_NCHW


def conv_layer(convolution: Convolution) -> nn.Conv2d:
    """The layer as torchvision's network has it."""
    out_channels, in_channels = convolution.kernel_OIHW.shape[:2]
    layer = nn.Conv2d(in_channels, out_channels, 3, 1, 1)
    layer.load_state_dict({"weight": convolution.kernel_OIHW, "bias": convolution.bias_O})
    return layer


def transposed_layer(convolution: Convolution, *, biased: bool) -> nn.ConvTranspose2d:
    """The layer back. Of a `biased` one the bias stays what torch drew when it was built."""
    out_channels, in_channels = convolution.kernel_OIHW.shape[:2]
    layer = nn.ConvTranspose2d(out_channels, in_channels, 3, 1, 1, bias=biased)
    layer.load_state_dict({"weight": convolution.kernel_OIHW}, strict=False)
    return layer
