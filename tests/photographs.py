"""Photographs that scikit-image ships: the demo's input, and the tests'. Run it to print their paths."""

from __future__ import annotations

import importlib.util
from pathlib import Path

NAMES = (
    "chelsea.png",
    "astronaut.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "hubble_deep_field.jpg",
)


def photographs() -> list[Path]:
    """Paths, in the order of `NAMES`. Raises FileNotFoundError without scikit-image."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("scikit-image is not installed: run make setup")
    return [Path(spec.origin).parent / "data" / name for name in NAMES]


if __name__ == "__main__":
    print(*photographs(), sep="\n")
