"""Boxes on feature maps: how they grow and shrink from layer to layer, and where they end.

A box is half-open, in places of the map it lies on. On the way down a 3 x 3 convolution with padding
1 widens what a signal touches by one place on each side, and a 2 x 2 pool doubles it; both stop at
the map's edge. Source: V. Dumoulin, F. Visin, arXiv 1603.07285, relationships 8 and 12.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from worker.contract.architectures import Layer


class Window(NamedTuple):
    """A box in pixels of the preprocessed image, half-open."""

    left: int
    top: int
    right: int
    bottom: int


class Size(NamedTuple):
    """Height and width of a feature map, in places."""

    height: int
    width: int

    def pooled(self) -> Size:
        """The size after a 2 x 2 max-pool: an odd last row or column is dropped."""
        return Size(self.height // 2, self.width // 2)


class Box(NamedTuple):
    """Rows `top` to `bottom`, columns `left` to `right` of a feature map, half-open."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows in the box."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns in the box."""
        return self.right - self.left

    def grown(self, size: Size, by: int = 1) -> Box:
        """What `by` 3 x 3 kernels, one after the other, reach from this box, within a map of `size`."""
        return Box(
            max(self.top - by, 0),
            max(self.left - by, 0),
            min(self.bottom + by, size.height),
            min(self.right + by, size.width),
        )

    def unpooled(self) -> Box:
        """The places that a 2 x 2 pool saw for this box."""
        return Box(2 * self.top, 2 * self.left, 2 * self.bottom, 2 * self.right)

    def pooled(self, size: Size) -> Box:
        """The places, in a pooled map of `size`, whose pools see any of this box."""
        return Box(
            self.top // 2,
            self.left // 2,
            min((self.bottom + 1) // 2, size.height),
            min((self.right + 1) // 2, size.width),
        )

    def window(self) -> Window:
        """The same box in the order that the index uses."""
        return Window(self.left, self.top, self.right, self.bottom)


def whole(size: Size) -> Box:
    """The box that covers a map of `size`."""
    return Box(0, 0, size.height, size.width)


def rows_within(elements: int, n: int, channels: int, width: int) -> int:
    """Rows of a map (N, C, H, `width`) that hold at most `elements` values: even, so that no pool is cut in
    two, and at least two.
    """
    return max(2, elements // (n * channels * width) // 2 * 2)


def row_bands(size: Size, rows: int) -> Iterator[Box]:
    """Cut a map of `size` into boxes of its whole width and at most `rows` rows, from the top."""
    for top in range(0, size.height, rows):
        yield Box(top, 0, min(top + rows, size.height), size.width)


class Padding(NamedTuple):
    """Zeros (or, negative, places to cut) around a signal so that a 3 x 3 kernel without padding of
    its own gives exactly the box that is wanted.
    """

    left: int
    right: int
    top: int
    bottom: int

    @classmethod
    def between(cls, given: Box, wanted: Box) -> Padding:
        """What a signal on `given` lacks for an output on `wanted`. Outside `given` it counts as zero."""
        return cls(
            given.left - wanted.left + 1,
            wanted.right - given.right + 1,
            given.top - wanted.top + 1,
            wanted.bottom - given.bottom + 1,
        )


def map_sizes(image: Size) -> tuple[Size, ...]:
    """Sizes of the maps that blocks 1 to 5 work on, and after the last pool: six of them."""
    sizes = [image]
    for _ in range(5):
        sizes.append(sizes[-1].pooled())
    return tuple(sizes)


def receptive_window(layers: tuple[Layer, ...], y: int, x: int, image: Size) -> Window:
    """The pixels that can influence place (y, x) of the last of `layers`, within an image of size `image`.

    `layers` are the trunk's layers from the first to the one that the place belongs to.
    """
    sizes = map_sizes(image)
    box = Box(y, x, y + 1, x + 1)
    for layer in reversed(layers):
        if layer.kind == "pool":
            box = box.unpooled()
        elif layer.kind == "conv":
            box = box.grown(sizes[layer.block - 1])
    return box.window()
