"""A hash that is nearly the same for pictures that look nearly the same.

Source: N. Krawetz, *Kind of Like That* (2013),
http://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

_ROWS, _COLUMNS = 8, 8


def difference_hash(pixels_HWC: npt.NDArray[np.uint8]) -> int:
    """64 bits: whether, in the picture shrunk to 9 x 8 greys, each is lighter than its left neighbour.

    In reading order, the first place is the highest bit. To resize, recompress or brighten a picture turns
    few bits or none; a picture of one grey gives 0.
    """
    grey = Image.fromarray(pixels_HWC).convert("L").resize((_COLUMNS + 1, _ROWS), Image.Resampling.BILINEAR)
    grey_HW = np.asarray(grey)
    return int.from_bytes(np.packbits(grey_HW[:, 1:] > grey_HW[:, :-1]).tobytes())
