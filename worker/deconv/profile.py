"""What an image makes of each unit: its strongest activation, and at how many places it fires at all.

What an audit says of units, docs/audits.md, "`units.parquet`", is made of these two numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Profile:
    """Of one layer: `peak_NC` (float32), each unit's strongest activation, NaN if any is NaN; `firing_NC`
    (int64), the places of its map that are above zero. Both on the CPU.
    """

    peak_NC: Tensor
    firing_NC: Tensor

    def __repr__(self) -> str:
        n_images, n_units = self.peak_NC.shape
        return f"<Profile of {n_images} images, {n_units} units>"


def profile_of(map_NCHW: Tensor) -> Profile:
    """The profile of a feature map. No order of its places changes a bit of it."""
    peak_NC = map_NCHW.amax((2, 3)).float()
    # In 32 bits, which hold any number of places: a third of the time of 64.
    firing_NC = (map_NCHW > 0).sum((2, 3), dtype=torch.int32).long()
    # A map may hold both zeros, 0 and -0, and either could be its maximum: 0 is the only one given.
    return Profile((peak_NC + 0.0).cpu(), firing_NC.cpu())
