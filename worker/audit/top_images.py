"""The images that make each unit fire most strongly, whatever the order in which images come.

Source: Zeiler & Fergus (arXiv 1311.2901), figure 2, which shows the nine of each of some units.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_LOW = np.uint64(2**32 - 1)
_HALF = np.uint64(32)


class TopImages:
    """The `top` images of each of some units: by peak, the greatest first, then by image key.

    A peak that is not above zero wins nothing.
    """

    def __init__(self, n_units: int, top: int) -> None:
        self._keys: npt.NDArray[np.str_] = np.empty(0, "U1")
        # A winner is one number: its peak's bits, which order as positive floats do, then, so that the
        # first key is the greatest, how many keys could come after its own. 0: nobody.
        self._codes_CK = np.zeros((n_units, top), np.uint64)

    @property
    def keys(self) -> set[str]:
        """All images that are a winner of some unit."""
        return set(self._keys.tolist())

    def add(self, keys_N: npt.NDArray[np.str_], peaks_NC: npt.NDArray[np.float32]) -> None:
        """Let images compete that have not been added yet; all peaks must be finite."""
        keys, places = np.unique(np.concatenate([self._keys, keys_N]), return_inverse=True)
        known = len(self._keys)
        held_CK = self._codes_CK & ~_LOW
        if known:
            held_CK |= np.where(held_CK > 0, _LOW - places[:known].astype(np.uint64)[self._places()], 0)
        bits_NC = np.where(peaks_NC > 0, peaks_NC, np.float32(0)).view(np.uint32).astype(np.uint64)
        codes_NC = bits_NC << _HALF | _LOW - places[known:].astype(np.uint64)[:, None]
        codes_NC[bits_NC == 0] = 0
        self._keep(keys, np.concatenate([held_CK, codes_NC.T], axis=1))

    def of(self, unit: int) -> list[tuple[str, float]]:
        """The unit's winners, the strongest first: image key and peak."""
        codes = self._codes_CK[unit]
        codes = codes[codes > 0]
        keys = self._keys[(_LOW - (codes & _LOW)).astype(np.int64)]
        peaks = (codes >> _HALF).astype(np.uint32).view(np.float32)
        return list(zip(keys.tolist(), peaks.tolist(), strict=True))

    def _places(self) -> npt.NDArray[np.int64]:
        """Each winner's key as a place in `_keys`; 0 where there is nobody."""
        return np.where(self._codes_CK > 0, _LOW - (self._codes_CK & _LOW), 0).astype(np.int64)

    def _keep(self, keys: npt.NDArray[np.str_], codes_CN: npt.NDArray[np.uint64]) -> None:
        """Take the greatest of each row, and forget the keys that nobody needs any more."""
        top = self._codes_CK.shape[1]
        best_CK = np.partition(codes_CN, codes_CN.shape[1] - top, axis=1)[:, -top:]
        self._codes_CK = np.sort(best_CK, axis=1)[:, ::-1].copy()
        some_CK = self._codes_CK > 0
        needed, places = np.unique(self._places()[some_CK], return_inverse=True)
        self._codes_CK[some_CK] = self._codes_CK[some_CK] & ~_LOW | _LOW - places.astype(np.uint64)
        self._keys = keys[needed]
