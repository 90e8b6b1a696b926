"""Sums of float32 values, and of their squares, that do not depend on the order of adding: they are exact.

A float32 is a whole number of 24 bits, its mantissa, times a power of two. Mantissas are added as integers,
those of each exponent apart; nothing is rounded until mean and variance are asked for.
Source: R. Neal, *Fast exact summation using small and large superaccumulators* (arXiv 1505.05571), whose
accumulator is larger and holds float64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

_EXPONENTS = 256
_SHIFT = 150
"""A float32 is its mantissa times 2 ** (exponent - 150)."""
_HALF_BITS = 24
"""A square has 48 bits: the upper and the lower half are added apart, so that 2 ** 30 values fit an int64."""


class ExactSums:
    """The sums of the values of each of some units. At most 2 ** 30 values a unit, 2 ** 29 in one call."""

    def __init__(self, n_units: int) -> None:
        self._n_units = n_units
        self._mantissas_CE = np.zeros((n_units, _EXPONENTS), np.int64)
        self._squares_high_CE = self._mantissas_CE.copy()
        self._squares_low_CE = self._mantissas_CE.copy()

    def add(self, values_NC: npt.NDArray[np.float32]) -> None:
        """Count values in, a column a unit; all must be finite."""
        bits_NC = np.ascontiguousarray(values_NC).view(np.uint32)
        exponent_NC = (bits_NC >> 23 & 0xFF).astype(np.int64)
        mantissa_NC = (bits_NC & 0x7FFFFF).astype(np.int64) | np.where(exponent_NC > 0, 1 << 23, 0)
        place = (exponent_NC + np.arange(self._n_units) * _EXPONENTS).ravel()
        square_NC = mantissa_NC * mantissa_NC
        self._mantissas_CE += self._added(place, np.where(bits_NC >> 31, -mantissa_NC, mantissa_NC))
        self._squares_high_CE += self._added(place, square_NC >> _HALF_BITS)
        self._squares_low_CE += self._added(place, square_NC & (1 << _HALF_BITS) - 1)

    def moments(self, n_values: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Each unit's mean_C and variance_C (of the population) over `n_values`, the nearest float64 each.

        0 without any value.
        """
        mean_C, variance_C = np.zeros(self._n_units), np.zeros(self._n_units)
        if n_values:
            for unit in range(self._n_units):
                mean_C[unit], variance_C[unit] = self._moments_of(unit, n_values)
        return mean_C, variance_C

    def _added(
        self, place: npt.NDArray[np.int64], numbers_NC: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        # In float64, as bincount adds: whole numbers of 24 bits, whose sums stay below 2 ** 53.
        sums = np.bincount(place, numbers_NC.ravel(), self._n_units * _EXPONENTS)
        return sums.astype(np.int64).reshape(self._n_units, _EXPONENTS)

    def _moments_of(self, unit: int, n: int) -> tuple[float, float]:
        high_E, low_E = self._squares_high_CE[unit], self._squares_low_CE[unit]
        total = squares = 0
        for exponent in np.flatnonzero(high_E | low_E).tolist():
            # Exponent 0 means the same power as 1, without the mantissa's leading bit.
            power = max(exponent, 1)
            total += int(self._mantissas_CE[unit, exponent]) << power
            squares += (int(high_E[exponent]) << _HALF_BITS) + int(low_E[exponent]) << 2 * power
        # Division of whole numbers gives the nearest float64, however long they are.
        return total / (n << _SHIFT), (n * squares - total * total) / (n * n << 2 * _SHIFT)
