"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with `~` and `~user` written out; an unknown user's is left as it is, and names no file."""
    # os.path and not pathlib, which raises RuntimeError for an unknown user.
    return Path(os.path.expanduser(path))  # noqa: PTH111
