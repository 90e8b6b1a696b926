"""Batch norm folded into the convolution before it: the same function, and VGG's plain layers.

In evaluation batch norm is a scale and a shift a channel, so it joins the kernel and the bias.
Source: S. Ioffe, C. Szegedy, arXiv 1502.03167, section 3.1; epsilon is torch's default, 1e-5.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from worker.contract.architectures import layers_of
from worker.contract.errors import WeightsError

_EPSILON = 1e-5


def has_batch_norm(state: Mapping[str, Tensor]) -> bool:
    """Whether a trunk's `state` dict, kernels (OIHW) and vectors (O), holds batch norms."""
    return any(key.endswith(".running_mean") for key in state)


def fold_batch_norm(state: Mapping[str, Tensor], model: str) -> dict[str, Tensor]:
    """Kernels (OIHW) and biases (O) by the plain trunk's names, of a `features` state dict with batch norm.

    There a convolution and its norm stand at indices i and i + 1, the ReLU at i + 2, and every layer
    below has moved on by one; `state` holds OIHW for a convolution, and O for each vector. Computed in
    float64. Raises WeightsError.
    """
    folded: dict[str, Tensor] = {}
    convolutions = [layer for layer in layers_of(model) if layer.kind == "conv"]
    for moved, layer in enumerate(convolutions):
        conv, norm = f"{layer.index + moved}.", f"{layer.index + moved + 1}."
        try:
            kernel_OIHW, bias_O = state[f"{conv}weight"].double(), state[f"{conv}bias"].double()
            scale_O, shift_O = state[f"{norm}weight"].double(), state[f"{norm}bias"].double()
            mean_O, variance_O = state[f"{norm}running_mean"].double(), state[f"{norm}running_var"].double()
            scale_O = scale_O / (variance_O + _EPSILON).sqrt()
            folded[f"{layer.index}.weight"] = (kernel_OIHW * scale_O[:, None, None, None]).float()
            folded[f"{layer.index}.bias"] = ((bias_O - mean_O) * scale_O + shift_O).float()
        except (KeyError, RuntimeError) as error:
            raise WeightsError(
                f"weights of {layer.name} with batch norm do not fit {model} ({error}); "
                "are they another model's?"
            ) from error
    return folded
