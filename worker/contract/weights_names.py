"""Names that stand for weights, and what is known of them before anything is loaded."""

from __future__ import annotations

NAMED_WEIGHTS: dict[str, str | None] = {
    "imagenet": None,
    "hed": "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
}
"""Name -> hex sha256 of the weights file, or None where only the worker that loads it learns it."""

RANDOM_PREFIX = "random:"
"""`random:SEED` stands for untrained weights drawn from that seed: for controls and tests."""


def is_seed(text: str) -> bool:
    """Whether the text after `random:` is a seed: a whole number from 0 of at most nine digits."""
    return text.isascii() and text.isdigit() and len(text) < 10


WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt")
"""What a file of weights may be called."""
