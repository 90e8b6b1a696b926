"""A second deconvnet, slow, from the definition alone: torch modules layer by layer, no windows.

Shares nothing with `worker.deconv` but the weights. Forward in whatever layout the input has, backward
with MaxUnpool2d, ReLU and ConvTranspose2d without bias, densely, one selection at a time.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from worker.contract.architectures import DEFAULT_MODEL, layers_of


def trunk_module(state: Mapping[str, Tensor], depth: int, model: str = DEFAULT_MODEL) -> nn.Sequential:
    """The first `depth` layers of the trunk as plain torch modules, as torchvision builds them."""
    modules: list[nn.Module] = []
    for layer in layers_of(model)[:depth]:
        if layer.kind == "conv":
            conv = nn.Conv2d(layer.in_channels, layer.channels, 3, padding=1)
            conv.load_state_dict(
                {"weight": state[f"{layer.index}.weight"], "bias": state[f"{layer.index}.bias"]}
            )
            modules.append(conv)
        elif layer.kind == "relu":
            modules.append(nn.ReLU(inplace=False))
        else:
            modules.append(nn.MaxPool2d(2, 2, return_indices=False))
    return nn.Sequential(*modules).eval().requires_grad_(requires_grad=False)


class Oracle:
    """One image batch, run up to a layer and remembered."""

    def __init__(
        self, state: Mapping[str, Tensor], x_NCHW: Tensor, index: int, model: str = DEFAULT_MODEL
    ) -> None:
        self.layers = trunk_module(state, index + 1, model)
        self.switches: list[tuple[Tensor, torch.Size] | None] = []
        with torch.no_grad():
            for module in self.layers:
                if isinstance(module, nn.MaxPool2d):
                    size = x_NCHW.shape
                    x_NCHW, indices = nn.functional.max_pool2d(x_NCHW, 2, 2, return_indices=True)
                    self.switches.append((indices, size))
                else:
                    x_NCHW = module(x_NCHW)
                    self.switches.append(None)
        self.map_NCHW = x_NCHW

    def down(self, seed_NCHW: Tensor) -> Tensor:
        """Carry a feature map that is zero wherever nothing is kept back to pixels."""
        signal = seed_NCHW
        with torch.no_grad():
            for module, switch in zip(reversed(self.layers), reversed(self.switches), strict=True):
                if isinstance(module, nn.Conv2d):
                    back = nn.ConvTranspose2d(
                        module.out_channels, module.in_channels, 3, padding=1, bias=False
                    )
                    back.weight.copy_(module.weight)
                    signal = back(signal)
                elif isinstance(module, nn.ReLU):
                    signal = signal.relu()
                else:
                    assert switch is not None
                    indices, size = switch
                    signal = nn.MaxUnpool2d(2, 2)(signal, indices, output_size=size)
        return signal

    def strongest(self, image: int, unit: int) -> tuple[int, int, float]:
        """Place and value of a unit's strongest activation; the first in reading order of equals."""
        plane = self.map_NCHW[image, unit]
        best = plane.max()
        y, x = (int(v) for v in (plane == best).nonzero()[0])
        return y, x, float(best)

    def seed(self, image: int, unit: int, y: int, x: int) -> Tensor:
        """The feature map of one image with this one activation kept."""
        seed = torch.zeros_like(self.map_NCHW)
        seed[image, unit, y, x] = self.map_NCHW[image, unit, y, x]
        return seed
