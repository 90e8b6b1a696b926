"""What the engine's tests share: images, loaded nets, and how two reconstructions are compared."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tests.photographs import photographs
from worker.deconv import Deconvnet, Reconstruction
from worker.deconv.weights import Weights, load_weights


@cache
def weights(name: str) -> Weights:
    return load_weights(name)


@cache
def net(name: str) -> Deconvnet:
    return Deconvnet(weights(name))


@cache
def photograph(number: int, height: int, width: int) -> Tensor:
    """A photograph of scikit-image's, resized: uint8, 1, H, W, 3."""
    with Image.open(photographs()[number]) as image:
        resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized))[None]


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Largest difference over the largest value of `b`."""
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-30))


def on_whole_image(result: Reconstruction, height: int, width: int) -> Tensor:
    """The reconstruction with the zeros that its window leaves out: 3, H, W."""
    out = torch.zeros(3, height, width)
    window = result.window
    out[:, window.top : window.bottom, window.left : window.right] = result.pixels_CHW
    return out
