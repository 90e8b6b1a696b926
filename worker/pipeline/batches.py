"""Which images go forward together: those of one size, as many as fit.

The grouping depends on the images' order and sizes alone, never on which thread was faster: another
batch is another rounding, and the same job must give the same pictures every time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from worker.contract.jobs import Job

_DEFAULT_BATCH_AT_224 = {"cpu": 8, "cuda": 32}
_MAX_DEFAULT_BATCH = 256
_PENDING_BATCHES = 4
_NATIVE_AHEAD = 4
_MIN_AHEAD = 8
_MAX_AHEAD = 128


class Sized(Protocol):
    """Anything with a size in pixels."""

    @property
    def height(self) -> int: ...  # noqa: D102 (named well enough)
    @property
    def width(self) -> int: ...  # noqa: D102 (named well enough)


_Image = TypeVar("_Image", bound=Sized)


class BatchSizes:
    """How many images of a size go forward together: as asked, or so that pixels stay about the same."""

    def __init__(self, job: Job, device_type: str) -> None:
        preprocessing = job.request.preprocessing
        self._asked = job.batch_size
        default = _DEFAULT_BATCH_AT_224.get(device_type, _DEFAULT_BATCH_AT_224["cpu"])
        self._default_pixels = default * 224 * 224
        self._most_pixels: int | None = None
        usual = self.of(preprocessing.size_px, preprocessing.size_px)
        self.pending_pixels = _PENDING_BATCHES * usual * preprocessing.size_px**2
        """Images that wait for others of their size hold no more pixels than this together."""
        self.n_ahead = (
            # Photographs as large as they are: few at a time, or they fill the memory.
            _NATIVE_AHEAD if preprocessing.resize == "native" else min(max(2 * usual, _MIN_AHEAD), _MAX_AHEAD)
        )
        """Images that are read and decoded ahead of the network."""

    def of(self, height: int, width: int) -> int:
        """The largest batch of images of `height` x `width` pixels, at least 1."""
        pixels = height * width
        n = self._asked or min(max(1, self._default_pixels // pixels), _MAX_DEFAULT_BATCH)
        return n if self._most_pixels is None else max(1, min(n, self._most_pixels // pixels))

    def halve(self, n: int, height: int, width: int) -> None:
        """`n` images of `height` x `width` pixels did not fit the memory: from now on half as many pixels."""
        self._most_pixels = n // 2 * height * width


class Batcher(Generic[_Image]):
    """Collects images by size. A group leaves when it is full, or when too many pixels wait.

    The group that leaves early is that of the oldest image, so that no image waits for ever.
    """

    def __init__(self, sizes: BatchSizes) -> None:
        self._sizes = sizes
        self._groups: dict[tuple[int, int], list[_Image]] = {}
        self._pixels = 0

    def add(self, image: _Image) -> Iterator[list[_Image]]:
        """Take an image in; gives the batches that are to go forward now."""
        size = (image.height, image.width)
        group = self._groups.setdefault(size, [])
        group.append(image)
        self._pixels += image.height * image.width
        if len(group) >= self._sizes.of(*size):
            yield self._take(size)
        while self._pixels > self._sizes.pending_pixels:
            yield self._take(next(iter(self._groups)))

    def rest(self) -> Iterator[list[_Image]]:
        """What is left, at the end."""
        while self._groups:
            yield self._take(next(iter(self._groups)))

    def _take(self, size: tuple[int, int]) -> list[_Image]:
        # A dict keeps the order in which groups were opened: the first one holds the oldest image.
        group = self._groups.pop(size)
        self._pixels -= len(group) * size[0] * size[1]
        return group
