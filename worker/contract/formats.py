"""How reconstructions can be stored: a row a format. Each has its encoder in `worker/pipeline/picture.py`.

The command line reads it too, for --help: nothing but the standard library is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple


class Format(NamedTuple):
    """`holds` the reconstruction as it is drawn, or its own numbers (float32, channels first).

    `media_type` is what browsers know it by; None where they do not show it.
    """

    holds: Literal["picture", "numbers"]
    media_type: str | None


PICTURE_FORMATS: Final[Mapping[str, Format]] = {
    "png": Format("picture", "image/png"),
    "webp": Format("picture", "image/webp"),
    "npy": Format("numbers", None),
}
"""By name, which is also the suffix of the files."""
