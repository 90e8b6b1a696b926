"""The atlas's sprites, made small enough to stand in one page as data: URIs."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from worker.contract.errors import MessageError, ObjectNotFound
from worker.contract.keys import atlas_key
from worker.storage import Store

MAX_EMBEDDED_BYTES = 32 * 2**20
"""No further picture is embedded once the page holds this much of them: a browser has to open it."""
CELL_PX = 56
QUALITY = 40
_N_READERS = 8
_READ_AHEAD = 256
_ROWS = {"reconstructions": 1, "patches": 1, "controls": 2}
"""Of cells. The order is that in which they are embedded."""


@dataclass(frozen=True)
class EmbeddedSprites:
    """`uris` are data: URIs by layer and `UNIT-WHAT`; `note` says what they lack, in a sentence or two."""

    uris: dict[str, dict[str, str]]
    note: str


def embedded_sprites(
    store: Store, units: Sequence[tuple[str, int]], top: int, max_bytes: int = MAX_EMBEDDED_BYTES
) -> EmbeddedSprites:
    """The sprites of `units` (layer and number) with smaller cells: all reconstructions first, controls last.

    A sprite that is gone is left out. Raises a StorageError; MessageError where a sprite is no picture.
    """
    wanted = [(what, layer, unit) for what in _ROWS for layer, unit in units]
    uris: dict[str, dict[str, str]] = defaultdict(dict)
    room = max_bytes

    def small(which: tuple[str, str, int]) -> str | None:
        what, layer, unit = which
        return _small(store, atlas_key(layer, unit, what), top, _ROWS[what])

    with ThreadPoolExecutor(_N_READERS) as readers:
        for start in range(0, len(wanted), _READ_AHEAD):
            if room <= 0:
                break
            some = wanted[start : start + _READ_AHEAD]
            for (what, layer, unit), uri in zip(some, readers.map(small, some), strict=True):
                if uri is None:
                    continue
                room -= len(uri)
                if room >= 0:
                    uris[layer][f"{unit}-{what}"] = uri
    n_embedded = sum(len(of) for of in uris.values())
    return EmbeddedSprites(dict(uris), _note(n_embedded, len(wanted), max_bytes))


def _small(store: Store, key: str, top: int, n_rows: int) -> str | None:
    try:
        data = store.read(key)
    except ObjectNotFound:
        return None
    try:
        with Image.open(io.BytesIO(data)) as sprite:
            picture = sprite.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise MessageError(
            f"{key} in {store.place} is no readable picture: {error}; delete its shard's record and resume"
        ) from error
    if picture.height > n_rows * CELL_PX:
        picture = picture.resize((top * CELL_PX, n_rows * CELL_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY, method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _note(n_embedded: int, n_wanted: int, max_bytes: int) -> str:
    what = f"In this file the pictures are smaller ({CELL_PX} px) and coarser than those beside index.html."
    if n_embedded == n_wanted:
        return what
    return (
        f"{what} {n_wanted - n_embedded:,} of {n_wanted:,} sprites are left out, "
        f"because they are gone or the file would hold more than {max_bytes / 2**20:.0f} MiB of pictures."
    )
