"""The VGG family as a table: layers by index and name, and their geometry. No torch.

Source: K. Simonyan, A. Zisserman, *Very Deep Convolutional Networks* (arXiv 1409.1556), table 1,
configurations A, B, D and E; indices are those of torchvision's `features` without batch norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

LayerKind = Literal["conv", "relu", "pool"]

# Convolutions in each of the five blocks; every block ends in a 2 x 2 max-pool.
_CONVS_PER_BLOCK = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
_CHANNELS_PER_BLOCK = (64, 128, 256, 512, 512)

BATCH_NORM_SUFFIX = "_bn"
MODELS = tuple(name + suffix for suffix in ("", BATCH_NORM_SUFFIX) for name in _CONVS_PER_BLOCK)
"""A model with batch norm has the layers of the one without: each norm is folded into its convolution."""

DEFAULT_MODEL = "vgg16"
MIN_IMAGE_SIZE = 32
"""Height and width from which five 2 x 2 pools leave at least one place."""


@dataclass(frozen=True)
class Layer:
    """One layer of a trunk.

    `index` counts within `features`; `block` from 1 to 5; `step` is the convolution within the block,
    from 0, that the layer is, belongs to or (a pool) comes after; `channels` are its output's feature
    maps (units); `in_channels` its input's; `stride` is the distance, in image pixels, between two
    neighbouring places of its output.
    """

    index: int
    name: str
    kind: LayerKind
    block: int
    step: int
    in_channels: int
    channels: int
    stride: int


@cache
def layers_of(model: str = DEFAULT_MODEL) -> tuple[Layer, ...]:
    """All layers of `model`'s trunk in forward order. `model` is one of `MODELS` (else KeyError)."""
    layers: list[Layer] = []
    channels = 3
    for block, n_convs in enumerate(_CONVS_PER_BLOCK[model.removesuffix(BATCH_NORM_SUFFIX)], start=1):
        stride = 2 ** (block - 1)
        for conv in range(1, n_convs + 1):
            in_channels, channels = channels, _CHANNELS_PER_BLOCK[block - 1]
            suffix = f"{block}_{conv}"
            layers.append(
                Layer(len(layers), f"conv{suffix}", "conv", block, conv - 1, in_channels, channels, stride)
            )
            layers.append(
                Layer(len(layers), f"relu{suffix}", "relu", block, conv - 1, channels, channels, stride)
            )
        layers.append(
            Layer(len(layers), f"pool{block}", "pool", block, n_convs - 1, channels, channels, stride * 2)
        )
    return tuple(layers)


@cache
def layers_by_name(model: str = DEFAULT_MODEL) -> dict[str, Layer]:
    """The same layers, by name."""
    return {layer.name: layer for layer in layers_of(model)}
