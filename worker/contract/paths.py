"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path

DEFAULT_CACHE_DIR = Path("~/.cache/deconvoy")
"""Where downloaded weights are kept."""


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with `~` and `~user` written out; an unknown user's is left as it is, and names no file."""
    try:
        # os.path and not pathlib, which raises RuntimeError for an unknown user.
        return Path(os.path.expanduser(path))  # noqa: PTH111 (see above)
    except ValueError:
        # What no user can be called: it holds a NUL, or half of a surrogate pair.
        return Path(path)
