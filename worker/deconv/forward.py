"""The pass up: once for a batch, only as deep as asked, with switches.

Large images go through each block in bands of rows, so that memory does not grow with the maps inside
a block: only what the next block reads, the switches, and the feature maps that somebody asked for
are ever whole. Bands give bit for bit what one piece gives.
Source: Zeiler & Fergus (arXiv 1311.2901), section 2.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.contract.architectures import Layer
from worker.deconv import switches
from worker.deconv.geometry import Box, Padding, Size, map_sizes, row_bands, rows_within
from worker.deconv.trunk import Block, Trunk, convolve


@dataclass(frozen=True)
class Forward:
    """What a pass up leaves behind.

    `maps` holds the feature maps (NCHW) of the layers that were asked for, by layer index;
    `switches_NCHW` those of each pool that was passed, by block number, unless nothing is to go down;
    `sizes` the map sizes of blocks 1 to 5 and after them.
    """

    n_images: int
    sizes: tuple[Size, ...]
    maps: dict[int, Tensor] = field(repr=False)
    switches_NCHW: dict[int, Tensor] = field(repr=False)


def forward(
    trunk: Trunk, x_NCHW: Tensor, layers: Collection[Layer], band_elements: int, *, way_back: bool = True
) -> Forward:
    """Run `x_NCHW` up to the deepest of `layers` and keep the feature maps of all of them.

    `band_elements` bounds the values of one feature map that is held inside a block. Without `way_back`
    no switches are kept.
    """
    sizes = map_sizes(Size(*x_NCHW.shape[2:]))
    wanted = {layer.index for layer in layers}
    deepest = max(wanted)
    result = Forward(x_NCHW.shape[0], sizes, {}, {})
    for block in trunk.blocks:
        x_NCHW = _through_block(block, x_NCHW, result, wanted, band_elements, way_back=way_back)
        if block.pool.index >= deepest:
            break
    return result


def _through_block(
    block: Block, x_NCHW: Tensor, result: Forward, wanted: set[int], band_elements: int, *, way_back: bool
) -> Tensor:
    """One block up: adds what is wanted of it to `result`; returns the pooled map."""
    n = x_NCHW.shape[0]
    size, pooled_size = result.sizes[block.number - 1 : block.number + 1]
    inside = {i for i in wanted if block.convolutions[0].layer.index <= i < block.pool.index}
    runs_to_pool = max(wanted) >= block.pool.index
    depth = block.depth_to(min(max(wanted), block.pool.index))
    rows = rows_within(band_elements, n, block.pool.channels, size.width)
    kept = Collected(n, size, one_piece=rows >= size.height)
    pooled = Collected(n, pooled_size, one_piece=rows >= size.height)
    for band in row_bands(size, rows):
        box = band.grown(size, depth)
        signal_NCHW = x_NCHW[:, :, box.top : box.bottom]
        for conv in block.convolutions[:depth]:
            # What is left to do decides how many rows of this map are still needed.
            out = band.grown(size, depth - 1 - conv.layer.step)
            signed = conv.layer.index in inside
            padding = Padding.between(box, out)
            signal_NCHW = convolve(signal_NCHW, conv.up, conv.bias_O, padding, rectify=not signed)
            box = out
            if signed:
                kept.add(conv.layer.index, signal_NCHW, box, band)
                signal_NCHW = signal_NCHW.relu()
            if conv.layer.index + 1 in inside:
                kept.add(conv.layer.index + 1, signal_NCHW, box, band)
        even = Box(band.top // 2, 0, band.bottom // 2, pooled_size.width)
        if runs_to_pool and even.height:
            _add_pooled(pooled, signal_NCHW, even, way_back=way_back)
    result.maps.update(kept.maps)
    if not runs_to_pool:
        return x_NCHW
    if way_back:
        result.switches_NCHW[block.number] = pooled.maps[1]
    if block.pool.index in wanted:
        result.maps[block.pool.index] = pooled.maps[0]
    return pooled.maps[0]


def _add_pooled(pooled: Collected, signal_NCHW: Tensor, even: Box, *, way_back: bool) -> None:
    if not way_back:
        pooled.add(0, F.max_pool2d(signal_NCHW, 2), even, even)
        return
    maxima_NCHW, switches_NCHW = switches.max_pool(signal_NCHW)
    pooled.add(0, maxima_NCHW, even, even)
    pooled.add(1, switches_NCHW, even, even)


class Collected:
    """Whole maps, put together from bands; the only band is taken as it is."""

    def __init__(self, n: int, size: Size, *, one_piece: bool) -> None:
        self.maps: dict[int, Tensor] = {}
        self._n, self._size, self._one_piece = n, size, one_piece

    def add(self, name: int, part_NCHW: Tensor, box: Box, band: Box) -> None:
        """Take the rows of `band` from a part that lies on `box`."""
        if self._one_piece:
            self.maps[name] = part_NCHW
            return
        if name not in self.maps:
            shape = (self._n, part_NCHW.shape[1], *self._size)
            self.maps[name] = torch.empty(
                shape, dtype=part_NCHW.dtype, device=part_NCHW.device, memory_format=torch.channels_last
            )
        rows = slice(band.top - box.top, band.bottom - box.top)
        self.maps[name][:, :, band.top : band.bottom] = part_NCHW[:, :, rows]
