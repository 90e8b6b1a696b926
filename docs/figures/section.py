"""A section of the article page: its figures and its numbers; and what all sections start from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from worker.contract.jobs import Preprocessing
from worker.deconv import Deconvnet
from worker.pipeline.preprocess import preprocess

WEIGHTS = "hed"
POOLS = ("pool1", "pool2", "pool3", "pool4", "pool5")


@dataclass(frozen=True)
class Section:
    """`figures` by the name of their file, `numbers` by what they are called in numbers.json."""

    figures: Mapping[str, Image.Image]
    numbers: Mapping[str, Any]


@dataclass(frozen=True)
class Material:
    """A photograph as the network sees it, and the network."""

    path: Path
    net: Deconvnet

    @classmethod
    def of(cls, path: Path) -> Material:
        """Of an image file, with the weights of the page, on the CPU."""
        return cls(path, Deconvnet.load(WEIGHTS, device="cpu"))

    @cached_property
    def pixels_HWC(self) -> npt.NDArray[np.uint8]:
        """RGB, 224 x 224."""
        with Image.open(self.path) as file:
            return preprocess(file.convert("RGB"), Preprocessing()).pixels_HWC

    @cached_property
    def x_NCHW(self) -> Tensor:
        """The network's input: for `hed` 0 to 255 minus a mean."""
        return self.net.normalise(torch.from_numpy(self.pixels_HWC)[None])


def rounded(value: float, digits: int = 3) -> float:
    """To so many significant digits: rounding in another order of additions does not reach these."""
    if value == 0 or not math.isfinite(value):
        return value
    result = round(value, digits - 1 - math.floor(math.log10(abs(value))))
    return int(result) if abs(value) >= 10 ** (digits - 1) else result


def similarity(a: Tensor, b: Tensor) -> float:
    """The cosine of two pictures' values, -1 to 1."""
    return float(torch.nn.functional.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0))


def rms(values: Tensor) -> float:
    """The root of the mean square."""
    return float(values.double().square().mean().sqrt())
