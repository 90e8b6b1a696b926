"""The way down for single activations, on their receptive fields only.

Without bias, what a single activation brings is exactly zero outside the places that its kernels reach,
so only those are computed: first one pixel, then a 3 x 3 slice of a kernel, then a window that grows by
one place a convolution and doubles at each unpooling, clipped at the image's edge. Bit for bit this is
what the whole map would give. Windows of all images, units and layers that lie alike travel together.
Source: Zeiler & Fergus (arXiv 1311.2901), section 2.1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.deconv import switches
from worker.deconv.forward import Forward
from worker.deconv.geometry import Box, Padding, Size
from worker.deconv.selection import Seed
from worker.deconv.trunk import Convolution, Trunk, convolve


@dataclass(frozen=True)
class Patch:
    """Signals of several seeds on boxes of one size: `signal_NCHW[i]` is seed `seeds[i]`'s, on `boxes[i]`.

    All boxes have the same distance to the map's edges as far as the coming convolutions can tell.
    """

    signal_NCHW: Tensor
    boxes: tuple[Box, ...]
    seeds: tuple[int, ...]


def project_windows(trunk: Trunk, seeds: Sequence[Seed], up: Forward, batch_elements: int) -> Iterator[Patch]:
    """Project single activations: yields them on boxes in pixels, in any order, each seed once.

    `Patch.seeds` count into `seeds`; a box holds everything that is not zero. `batch_elements` bounds
    the values of one signal that travels; it decides about speed and memory, never about the result.
    """
    descent = _Descent(trunk, seeds, up, batch_elements)
    places = _entries(seeds, up)
    entries: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, seed in enumerate(seeds):
        entries[seed.spec.layer.block, seed.spec.layer.step].append(index)
    for (block, step), entering in entries.items():
        size = up.sizes[block - 1]
        convolution = trunk.blocks[block - 1].convolutions[step]
        boxes = [Box(y, x, y + 1, x + 1) for y, x in (places[index] for index in entering)]
        for group in _alike(boxes, size, step + 1):
            for chunk in descent.chunks(block, boxes[group[0]], group):
                patch = _kernel_slices(
                    convolution, seeds, [entering[i] for i in chunk], [boxes[i] for i in chunk], size
                )
                yield from descent.carry(patch, block, step - 1)


@dataclass(frozen=True)
class _Descent:
    """What stays the same on the way down: kernels, seeds, switches, and how much may travel at once."""

    trunk: Trunk
    seeds: Sequence[Seed]
    up: Forward
    batch_elements: int

    def carry(self, patch: Patch, block: int, step: int) -> Iterator[Patch]:
        """Carry a patch below convolution `step` of `block` (-1: the block's input) to the pixels."""
        for convolution in reversed(self.trunk.blocks[block - 1].convolutions[: step + 1]):
            patch = _transposed(convolution, patch, self.up.sizes[block - 1])
        if block == 1:
            yield patch
            return
        below = self.trunk.blocks[block - 2]
        boxes = [box.unpooled() for box in patch.boxes]
        for group in _alike(boxes, self.up.sizes[block - 2], len(below.convolutions)):
            for chunk in self.chunks(block - 1, boxes[group[0]], group):
                part = _unpooled(patch, chunk, self.seeds, self.up.switches_NCHW[block - 1])
                yield from self.carry(part, block - 1, len(below.convolutions) - 1)

    def chunks(self, block: int, box: Box, group: Sequence[int]) -> Iterator[list[int]]:
        """Cut a group of boxes as large as `box` so that its largest signal within the block stays under
        `batch_elements` values.
        """
        reach = 2 * len(self.trunk.blocks[block - 1].convolutions)
        channels = self.trunk.blocks[block - 1].pool.channels
        elements = channels * (box.height + reach) * (box.width + reach)
        n = max(1, self.batch_elements // elements)
        for start in range(0, len(group), n):
            yield list(group[start : start + n])


def _entries(seeds: Sequence[Seed], up: Forward) -> list[tuple[int, int]]:
    """Where each seed enters: its place (y, x) on the output of its layer's convolution."""
    places = [(seed.y, seed.x) for seed in seeds]
    by_block: dict[int, list[int]] = defaultdict(list)
    for index, seed in enumerate(seeds):
        if seed.spec.layer.kind == "pool":
            by_block[seed.spec.layer.block].append(index)
    for block, pooled in by_block.items():
        # All at once: on a GPU each look at a single value would wait for everything before it.
        at = torch.tensor([(seeds[i].image, seeds[i].unit, seeds[i].y, seeds[i].x) for i in pooled])
        image_N, unit_N, y_N, x_N = at.to(up.switches_NCHW[block].device).unbind(1)
        for index, switch in zip(
            pooled, up.switches_NCHW[block][image_N, unit_N, y_N, x_N].tolist(), strict=True
        ):
            places[index] = switches.position_of(places[index], switch)
    return places


def _kernel_slices(
    convolution: Convolution, seeds: Sequence[Seed], indices: Sequence[int], boxes: Sequence[Box], size: Size
) -> Patch:
    """The first step down: a single activation times its unit's kernel, clipped at the map's edge."""
    kernel_OIHW = convolution.kernel_OIHW
    units_N = torch.tensor([seeds[i].unit for i in indices], device=kernel_OIHW.device)
    activation_N = torch.tensor(
        [seeds[i].activation for i in indices], device=kernel_OIHW.device, dtype=kernel_OIHW.dtype
    )
    signal_NCHW = kernel_OIHW.index_select(0, units_N).mul_(activation_N[:, None, None, None])
    if convolution.layer.index > 0:
        signal_NCHW.relu_()
    grown = tuple(box.grown(size) for box in boxes)
    top, left = grown[0].top - boxes[0].top + 1, grown[0].left - boxes[0].left + 1
    signal_NCHW = signal_NCHW[:, :, top : top + grown[0].height, left : left + grown[0].width]
    return Patch(signal_NCHW.contiguous(memory_format=torch.channels_last), grown, tuple(indices))


def _transposed(convolution: Convolution, patch: Patch, size: Size) -> Patch:
    """One convolution down, and the ReLU below it (none below the first: pixels are signed)."""
    grown = tuple(box.grown(size) for box in patch.boxes)
    padding = Padding.between(patch.boxes[0], grown[0])
    below = convolution.layer.index > 0
    signal_NCHW = convolve(patch.signal_NCHW, convolution.back, None, padding, rectify=below)
    return Patch(signal_NCHW, grown, patch.seeds)


def _unpooled(patch: Patch, rows: Sequence[int], seeds: Sequence[Seed], switches_NCHW: Tensor) -> Patch:
    """Unpool some of a patch's windows, each through its own image's switches at its own place."""
    cut = [
        switches_NCHW[seeds[patch.seeds[i]].image, :, box.top : box.bottom, box.left : box.right]
        for i, box in ((i, patch.boxes[i]) for i in rows)
    ]
    signal_NCHW = patch.signal_NCHW
    if len(rows) < len(patch.seeds):
        signal_NCHW = signal_NCHW[torch.tensor(rows, device=signal_NCHW.device)]
    box = Box(0, 0, patch.boxes[0].height, patch.boxes[0].width)
    return Patch(
        switches.unpool(signal_NCHW, torch.stack(cut), box, box.unpooled()),
        tuple(patch.boxes[i].unpooled() for i in rows),
        tuple(patch.seeds[i] for i in rows),
    )


def _alike(boxes: Sequence[Box], size: Size, reach: int) -> list[list[int]]:
    """Group boxes that have one shape and, `reach` convolutions on, are clipped alike at every edge."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, box in enumerate(boxes):
        edges = (box.top, box.left, size.height - box.bottom, size.width - box.right)
        groups[(box.height, box.width, *(min(edge, reach) for edge in edges))].append(index)
    return list(groups.values())
