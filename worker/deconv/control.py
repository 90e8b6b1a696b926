"""The control: how much of a reconstruction is its unit's, and how much is the switches' alone.

Deconvnets recover much of an image whichever unit is asked, and even with random weights: the switches
carry its structure. So each reconstruction is set beside two that nothing but the kernels tells apart.
Source: W. Nie, Y. Zhang, A. Patel, arXiv 1805.07039.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.deconv.selection import Seed
from worker.deconv.trunk import Trunk
from worker.deconv.weights import load_weights

if TYPE_CHECKING:  # which has controls itself
    from worker.deconv.network import Ascent, Deconvnet, Reconstruction


@dataclass(frozen=True)
class Control:
    """One reconstruction and its controls: same image, same switches, same place, same activation.

    `other_unit` begins with another unit's kernel; `random_weights` goes down through untrained kernels.
    A similarity is the cosine of the two pictures' pixels, -1 to 1; 1 means that the picture says
    nothing about the unit (or about the training). It is 0 where one of the two is zero everywhere.
    """

    reconstruction: Reconstruction
    other_unit: Reconstruction
    random_weights: Reconstruction
    other_unit_similarity: float
    random_weights_similarity: float


class Controls:
    """Makes the controls of a network's reconstructions; `seed` is that of the random weights."""

    def __init__(self, net: Deconvnet, seed: int = 0) -> None:
        self._net = net
        self._untrained = _untrained(net.trunk.model, seed, net.device, net.trunk.dtype)

    def of(self, ascent: Ascent) -> list[Control]:
        """The controls of all single activations that `ascent` keeps, in their order."""
        net, up, seeds = self._net, ascent.up, ascent.seeds
        with net.computing():
            given = net.single_activations(net.trunk, seeds, up)
            others = net.single_activations(net.trunk, _other_units(seeds), up)
            untrained = net.single_activations(self._untrained, seeds, up)
        return [
            Control(
                *three,
                _cosine(three[0].pixels_CHW, three[1].pixels_CHW),
                _cosine(three[0].pixels_CHW, three[2].pixels_CHW),
            )
            for three in zip(given, others, untrained, strict=True)
        ]


@lru_cache(maxsize=1)
def _untrained(model: str, seed: int, device: torch.device, dtype: torch.dtype) -> Trunk:
    """Kept for all shards of a process: to draw the weights takes a second."""
    return Trunk.build(model, load_weights(f"random:{seed}", model).state, device, dtype)


def _other_units(seeds: Sequence[Seed]) -> list[Seed]:
    """For each seed the unit half a layer away, so that every unit is another's control once."""
    return [
        replace(seed, unit=(seed.unit + channels // 2) % channels)
        for seed, channels in ((seed, seed.spec.layer.channels) for seed in seeds)
    ]


def _cosine(a_CHW: Tensor, b_CHW: Tensor) -> float:
    return float(F.cosine_similarity(a_CHW.flatten().double(), b_CHW.flatten().double(), dim=0))
