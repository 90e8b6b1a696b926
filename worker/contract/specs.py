"""Layer specs, `LAYER:SELECTION`: which part of which feature map is projected back to pixels.

LAYER is a name (`conv1_1 … relu5_3`, `pool1 … pool5`) or an index into VGG's `features`.
SELECTION is `all` (the whole feature map), `max` (its one strongest activation), `top:K` (the K
strongest units, each by its strongest activation) or `unit:N[,N…]` (the named units, likewise).
Source: M. Zeiler, R. Fergus, arXiv 1311.2901, section 2.1.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from worker.contract.architectures import DEFAULT_MODEL, MODELS, Layer, layers_by_name, layers_of
from worker.contract.errors import SpecError

Selection = Literal["all", "max", "top", "unit"]
_SELECTIONS = ("all", "max", "top:K", "unit:N[,N…]")
_MAX_SLUG = 60


@dataclass(frozen=True)
class LayerSpec:
    """One parsed spec. `k` counts for `top`, `units` for `unit`; both are empty otherwise."""

    layer: Layer
    selection: Selection
    k: int = 0
    units: tuple[int, ...] = ()

    def __str__(self) -> str:
        match self.selection:
            case "top":
                return f"{self.layer.name}:top:{self.k}"
            case "unit":
                return f"{self.layer.name}:unit:{','.join(map(str, self.units))}"
            case _:
                return f"{self.layer.name}:{self.selection}"

    @property
    def slug(self) -> str:
        """The spec as part of a key: no character that a file system or URL treats specially."""
        text = re.sub(r"[:,]", "-", str(self))
        if len(text) <= _MAX_SLUG:
            return text
        digest = hashlib.sha256(str(self).encode()).hexdigest()[:12]
        return f"{self.layer.name}-unit-{len(self.units)}-units-{digest}"

    @property
    def is_whole_map(self) -> bool:
        """True for `all`: the reconstruction covers the whole image and belongs to no unit."""
        return self.selection == "all"

    @property
    def n_results(self) -> int:
        """How many reconstructions, and index rows, an image gets from this spec."""
        return {"all": 1, "max": 1, "top": self.k, "unit": len(self.units)}[self.selection]


def parse_spec(text: str, model: str = DEFAULT_MODEL) -> LayerSpec:
    """Read `LAYER:SELECTION` for a trunk of `model`.

    Raises SpecError, which names the nearest valid layer or the valid selections.
    """
    if model not in MODELS:
        raise SpecError(f"model {model!r} is unknown: choose one of {', '.join(MODELS)}")
    layer_text, _, selection_text = text.strip().partition(":")
    layer = _parse_layer(layer_text.strip(), text, model)
    name, _, argument = (part.strip() for part in selection_text.partition(":"))
    if name in ("all", "max") and not argument:
        return LayerSpec(layer, "all" if name == "all" else "max")
    if name == "top":
        k = _parse_int(argument)
        if k is None or not 1 <= k <= layer.channels:
            raise SpecError(
                f"spec {text!r}: top:K needs K from 1 to {layer.channels}, the units of {layer.name}"
            )
        return LayerSpec(layer, "top", k=k)
    if name == "unit":
        return LayerSpec(layer, "unit", units=_parse_units(argument, text, layer))
    near = difflib.get_close_matches(name, ["all", "max", "top", "unit"], n=1, cutoff=0.5)
    hint = (
        f"did you mean {layer.name}:{near[0]}?"
        if near and name != near[0]
        else f"choose one of {', '.join(_SELECTIONS)}"
    )
    raise SpecError(f"spec {text!r}: selection {selection_text!r} is unknown; {hint}")


def parse_specs(texts: Iterable[str], model: str = DEFAULT_MODEL) -> tuple[LayerSpec, ...]:
    """Read several specs; the same spec written twice counts once, the order stays.

    Raises SpecError for a bad spec, and if there is none at all.
    """
    specs = tuple(dict.fromkeys(parse_spec(text, model) for text in texts))
    if not specs:
        raise SpecError("no layer spec is given: name at least one, such as pool5:max")
    return specs


DEFAULT_SPECS = tuple(f"pool{block}:{selection}" for block in range(1, 6) for selection in ("all", "max"))
"""The article's ten: after each pool, the whole feature map (A) and its strongest activation (B)."""


def _parse_layer(name: str, text: str, model: str) -> Layer:
    layers = layers_of(model)
    index = _parse_int(name)
    if index is not None:
        if index < len(layers):
            return layers[index]
        raise SpecError(f"spec {text!r}: {model} has layers 0 to {len(layers) - 1}, not {index}")
    by_name = layers_by_name(model)
    if name.lower() in by_name:
        return by_name[name.lower()]
    near = difflib.get_close_matches(name.lower(), by_name, n=1, cutoff=0.0)
    raise SpecError(f"spec {text!r}: {model} has no layer {name!r}; the nearest is {near[0]}")


def _parse_units(argument: str, text: str, layer: Layer) -> tuple[int, ...]:
    units = [_parse_int(part.strip()) for part in argument.split(",")]
    valid = tuple(dict.fromkeys(unit for unit in units if unit is not None and unit < layer.channels))
    if len(valid) != len(units):
        raise SpecError(
            f"spec {text!r}: unit:N[,N…] needs different numbers from 0 to {layer.channels - 1}, "
            f"the units of {layer.name}"
        )
    return valid


def _parse_int(text: str) -> int | None:
    """A plain decimal number, or None. Length-limited: Python refuses to convert very long ones."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
