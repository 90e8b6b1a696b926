"""Which activations are kept: the strongest of a map, of the K strongest units, of the named units.

Source: Zeiler & Fergus (arXiv 1311.2901), section 2.1: "we set all other activations in the layer to
zero". A kept activation keeps its value. Of equal activations the one of the lower unit, then the one
that comes first in reading order, is the strongest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from worker.contract.specs import LayerSpec


@dataclass(frozen=True)
class Seed:
    """One kept activation: of image `image` of the batch, at place (y, x) of feature map `unit`."""

    image: int
    spec: LayerSpec
    unit: int
    y: int
    x: int
    activation: float


@dataclass(frozen=True)
class Peaks:
    """Each unit's strongest activation: `value_NC`, and `place_NC`, its flat index in a map that is `width`
    places wide.
    """

    value_NC: Tensor
    place_NC: Tensor
    width: int


def peaks_of(map_NCHW: Tensor) -> Peaks:
    """The strongest activation of each unit of each image."""
    n, channels, height, width = map_NCHW.shape
    value_NC, place_NC = map_NCHW.permute(0, 2, 3, 1).reshape(n, height * width, channels).max(dim=1)
    return Peaks(value_NC.cpu(), place_NC.cpu(), width)


def select(spec: LayerSpec, peaks: Peaks) -> Iterable[Seed]:
    """The seeds that `spec` keeps, image by image; for `top` the strongest unit first."""
    # A stable sort keeps the lower unit first among equals.
    ranked_NC = peaks.value_NC.sort(dim=1, descending=True, stable=True).indices
    for image in range(peaks.value_NC.shape[0]):
        strongest = ranked_NC[image, : spec.n_results].tolist()
        for unit in spec.units or strongest:
            yield seed_of(image, spec, unit, peaks)


def seed_of(image: int, spec: LayerSpec, unit: int, peaks: Peaks) -> Seed:
    """The peak of one unit of one image."""
    y, x = divmod(int(peaks.place_NC[image, unit]), peaks.width)
    return Seed(image, spec, unit, y, x, float(peaks.value_NC[image, unit]))
