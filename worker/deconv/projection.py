"""The way down for whole feature maps (`all`): unpooling, ReLU, transposed convolution, to the pixels.

Maps of several layers travel together: where the signal from a deeper layer arrives at the level of
another, the two go on as one batch. Source: Zeiler & Fergus (arXiv 1311.2901), section 2.1; nothing is
rectified after the last convolution, so a reconstruction is signed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from worker.deconv import switches
from worker.deconv.forward import Collected, Forward
from worker.deconv.geometry import Box, Padding, row_bands, rows_within
from worker.deconv.trunk import Block, Convolution, Trunk, convolve


def project_maps(
    trunk: Trunk, seeds: Mapping[int, Tensor], up: Forward, band_elements: int
) -> dict[int, Tensor]:
    """Project whole feature maps back to pixels.

    `seeds` are maps (NCHW, one an image of the pass `up`) by layer index; the result holds, by the same
    index, reconstructions (N, 3, H, W) in network-input units. `band_elements` as in `forward`.
    """
    order: list[int] = []
    signal_NCHW: Tensor | None = None
    for block in reversed(trunk.blocks):
        first = block.convolutions[0].layer.index
        own = {index: seed for index, seed in seeds.items() if first <= index <= block.pool.index}
        if signal_NCHW is None and not own:
            continue
        signal_NCHW = _down_block(block, signal_NCHW, own, up, band_elements)
        order += sorted(own, reverse=True)
    assert signal_NCHW is not None  # noqa: S101  (a spec names a layer of the trunk)
    return dict(zip(order, signal_NCHW.tensor_split(len(order)), strict=True))


def _down_block(
    block: Block, above_NCHW: Tensor | None, own: Mapping[int, Tensor], up: Forward, band_elements: int
) -> Tensor:
    """One block down, from its pooled map (and own seeds) to its input, in bands of rows."""
    size = up.sizes[block.number - 1]
    convolutions = block.convolutions
    if above_NCHW is not None or block.pool.index in own:
        parts = [part for part in (above_NCHW, own.get(block.pool.index)) if part is not None]
        pooled_NCHW = torch.cat(parts) if len(parts) > 1 else parts[0]
        depth = len(convolutions)
    else:
        pooled_NCHW = None
        depth = block.depth_to(max(own))
    n = sum(seed.shape[0] for seed in own.values()) + (0 if above_NCHW is None else above_NCHW.shape[0])
    rows = rows_within(band_elements, n, block.pool.channels, size.width)
    out = Collected(n, size, one_piece=rows >= size.height)
    for band in row_bands(size, rows):
        boxes = [band.grown(size, step) for step in range(depth + 1)]
        signals = [] if pooled_NCHW is None else [_unpool_band(block, pooled_NCHW, up, boxes[depth])]
        for step in range(depth, 0, -1):
            convolution = convolutions[step - 1]
            signals += _joining(own, convolution, boxes[step])
            signal_NCHW = torch.cat(signals) if len(signals) > 1 else signals[0]
            padding = Padding.between(boxes[step], boxes[step - 1])
            below = convolution.layer.index > 0  # under the first convolution there is no ReLU
            signals = [convolve(signal_NCHW, convolution.back, None, padding, rectify=below)]
        out.add(0, signals[0], band, band)
    return out.maps[0]


def _unpool_band(block: Block, pooled_NCHW: Tensor, up: Forward, wanted: Box) -> Tensor:
    """Unpool what covers `wanted`. Nothing is left to rectify: no pooled signal is negative."""
    given = wanted.pooled(up.sizes[block.number])
    rows = slice(given.top, given.bottom)
    switches_NCHW = up.switches_NCHW[block.number][:, :, rows]
    signal_NCHW = pooled_NCHW[:, :, rows]
    repeats = signal_NCHW.shape[0] // switches_NCHW.shape[0]
    parts = [
        switches.unpool(part_NCHW, switches_NCHW, given, wanted) for part_NCHW in signal_NCHW.chunk(repeats)
    ]
    return torch.cat(parts) if repeats > 1 else parts[0]


def _joining(own: Mapping[int, Tensor], convolution: Convolution, box: Box) -> list[Tensor]:
    """The seeds of this convolution's ReLU and of itself, which join the signal that arrives here."""
    rows = slice(box.top, box.bottom)
    index = convolution.layer.index
    return [own[layer][:, :, rows] for layer in (index + 1, index) if layer in own]
