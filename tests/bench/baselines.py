"""What people use today: three ways to the reconstruction of single activations, densely on the image.

All get the places to reconstruct for free, run the two photographs as one batch, and work in torch's
default memory layout, as their users write them. Each call of `reconstruct` makes one picture an image.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from captum.attr import NeuronDeconvolution
from torch import Tensor, nn

from tests.oracle import trunk_module


class Place(NamedTuple):
    """One activation of one image's feature map."""

    unit: int
    y: int
    x: int
    activation: float


class Baseline(Protocol):
    """`prepare` is the work that all units share; `reconstruct` what each costs on top of it."""

    def prepare(self) -> None: ...
    def reconstruct(self, places_N: Sequence[Place]) -> Tensor: ...


class Captum:
    """`NeuronDeconvolution` on the trunk cut at the layer: one `attribute` call a unit.

    Captum takes one place for the whole batch, or a callable; the callable lets images keep places of
    their own in one call. Captum's seed is 1, so its gradient is multiplied by the activation.
    """

    def __init__(self, state: Mapping[str, Tensor], x_NCHW: Tensor, depth: int) -> None:
        trunk = trunk_module(state, depth).to(x_NCHW.device)
        self._captum = NeuronDeconvolution(trunk, trunk[-1])
        self._x_NCHW = x_NCHW.clone().requires_grad_()

    def prepare(self) -> None:
        """Nothing is shared: each call repeats the forward pass."""

    def reconstruct(self, places_N: Sequence[Place]) -> Tensor:
        def selected(map_NCHW: Tensor) -> Tensor:
            return torch.stack([map_NCHW[n, p.unit, p.y, p.x] for n, p in enumerate(places_N)])

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Captum warns of its own hooks at every call
            gradient_NCHW: Tensor = self._captum.attribute(self._x_NCHW, selected)
        activation_N = gradient_NCHW.new_tensor([place.activation for place in places_N])
        return gradient_NCHW.detach() * activation_N[:, None, None, None]


class CaptumEach(Captum):
    """The same as its documentation calls it: one image and one (unit, y, x) a call."""

    def reconstruct(self, places_N: Sequence[Place]) -> Tensor:
        parts = []
        for n, place in enumerate(places_N):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                where = (place.unit, place.y, place.x)
                gradient_NCHW: Tensor = self._captum.attribute(self._x_NCHW[n : n + 1], where)
            parts.append(gradient_NCHW.detach() * place.activation)
        return torch.cat(parts)


class ArticleLoop:
    """Per unit: forward with `return_indices`, keep one activation, densely back layer by layer.

    The layers of the way back are built once.
    """

    def __init__(self, state: Mapping[str, Tensor], x_NCHW: Tensor, depth: int) -> None:
        self._x_NCHW = x_NCHW
        self._up = trunk_module(state, depth).to(x_NCHW.device)
        self._down: list[nn.Module] = []
        for layer in self._up:
            if isinstance(layer, nn.MaxPool2d):
                layer.return_indices = True
                self._down.append(nn.MaxUnpool2d(2, 2))
            elif isinstance(layer, nn.Conv2d):
                back = nn.ConvTranspose2d(layer.out_channels, layer.in_channels, 3, padding=1, bias=False)
                back.weight = layer.weight
                self._down.append(back)
            else:
                self._down.append(nn.ReLU())

    def prepare(self) -> None:
        """Nothing is shared: each unit repeats the forward pass."""

    @torch.no_grad()
    def reconstruct(self, places_N: Sequence[Place]) -> Tensor:
        map_NCHW, switches = self._forward()
        return self._backward(_only(map_NCHW, places_N), switches)

    @torch.no_grad()
    def reconstruct_all_and_max(self) -> tuple[Tensor, Tensor]:
        """The article's A and B of one layer, from one forward pass."""
        map_NCHW, switches = self._forward()
        strongest_N = map_NCHW.flatten(1).argmax(dim=1, keepdim=True)
        kept_NCHW = torch.zeros_like(map_NCHW).flatten(1)
        kept_NCHW.scatter_(1, strongest_N, map_NCHW.flatten(1).gather(1, strongest_N))
        return self._backward(map_NCHW, switches), self._backward(kept_NCHW.view_as(map_NCHW), switches)

    def _forward(self) -> tuple[Tensor, list[tuple[Tensor, torch.Size]]]:
        signal_NCHW, switches = self._x_NCHW, []
        for layer in self._up:
            if isinstance(layer, nn.MaxPool2d):
                size = signal_NCHW.shape
                signal_NCHW, indices_NCHW = layer(signal_NCHW)
                switches.append((indices_NCHW, size))
            else:
                signal_NCHW = layer(signal_NCHW)
        return signal_NCHW, switches

    def _backward(self, signal_NCHW: Tensor, switches: list[tuple[Tensor, torch.Size]]) -> Tensor:
        left = list(switches)
        for layer in reversed(self._down):
            if isinstance(layer, nn.MaxUnpool2d):
                indices_NCHW, size = left.pop()
                signal_NCHW = layer(signal_NCHW, indices_NCHW, output_size=size)
            else:
                signal_NCHW = layer(signal_NCHW)
        return signal_NCHW


class Autograd:
    """One forward pass for all units, its graph kept; per unit one backward with clamped ReLU gradients."""

    def __init__(self, state: Mapping[str, Tensor], x_NCHW: Tensor, depth: int) -> None:
        self._trunk = trunk_module(state, depth).to(x_NCHW.device)
        self._x_NCHW = x_NCHW.clone().requires_grad_()
        self._map_NCHW: Tensor | None = None

    def prepare(self) -> None:
        """The forward pass."""
        signal_NCHW = self._x_NCHW
        for layer in self._trunk:
            signal_NCHW = _clamped_relu(signal_NCHW) if isinstance(layer, nn.ReLU) else layer(signal_NCHW)
        self._map_NCHW = signal_NCHW

    def reconstruct(self, places_N: Sequence[Place]) -> Tensor:
        assert self._map_NCHW is not None
        seed_NCHW = _only(self._map_NCHW.detach(), places_N)
        (pixels_NCHW,) = torch.autograd.grad(self._map_NCHW, self._x_NCHW, seed_NCHW, retain_graph=True)
        return pixels_NCHW


class _ClampedReLU(torch.autograd.Function):
    """ReLU up, and ReLU of the signal on the way down."""

    @staticmethod
    def forward(_context: object, x_NCHW: Tensor) -> Tensor:
        return x_NCHW.relu()

    @staticmethod
    def backward(_context: object, signal_NCHW: Tensor) -> Tensor:
        return signal_NCHW.relu()


def _clamped_relu(x_NCHW: Tensor) -> Tensor:
    out_NCHW: Tensor = _ClampedReLU.apply(x_NCHW)
    return out_NCHW


def _only(map_NCHW: Tensor, places_N: Sequence[Place]) -> Tensor:
    kept_NCHW = torch.zeros_like(map_NCHW)
    for n, place in enumerate(places_N):
        kept_NCHW[n, place.unit, place.y, place.x] = map_NCHW[n, place.unit, place.y, place.x]
    return kept_NCHW


BASELINES: Mapping[str, Callable[[Mapping[str, Tensor], Tensor, int], Baseline]] = {
    "captum": Captum,
    "captum, each": CaptumEach,
    "article": ArticleLoop,
    "autograd": Autograd,
}
