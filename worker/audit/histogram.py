"""Histograms of peaks in quarter octaves, and how far two of them lie apart.

A bin's number is the upper bits of the float32 itself, 8 of the exponent and 2 of the mantissa: there is no
logarithm, and no rounding, to decide which bin a value falls into. The bins are the same for all units:
docs/audits.md, "`units.parquet`".
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

N_BINS = 1020
"""Bins of finite values. Bin 0 holds all that is not above zero, and what is less than 2 ** -128."""

_BIN_SHIFT = 21
_GROUPS = 10
_DECIMALS = 6


class Histograms:
    """How many of each unit's values fell into each bin."""

    def __init__(self, n_units: int) -> None:
        self.counts_CB: Counts = np.zeros((n_units, N_BINS), np.int64)

    def add(self, values_NC: npt.NDArray[np.float32]) -> None:
        """Count values in, a column a unit; all must be finite."""
        n_units = len(self.counts_CB)
        place_NC = bins_of(values_NC) + np.arange(n_units) * N_BINS
        self.counts_CB += np.bincount(place_NC.ravel(), minlength=n_units * N_BINS).reshape(n_units, N_BINS)


def bins_of(values: npt.NDArray[np.float32]) -> Counts:
    """The number of each value's bin; `values`, and so the result, may have any shape, such as NC."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return np.where(values > 0, bits >> _BIN_SHIFT, 0).astype(np.int64)


def lower_edges(bins: Counts) -> npt.NDArray[np.float32]:
    """The least value of each of these `bins`, 0 for bin 0; of any shape, such as CB: so is the result."""
    return (bins.astype(np.uint32) << _BIN_SHIFT).view(np.float32)


def kolmogorov_smirnov(base_CB: Counts, now_CB: Counts) -> npt.NDArray[np.float64]:
    """The greatest distance of the two distribution functions, at the bins' edges: ks_C, one a row.

    Values in one bin count as equal, so it is never more than that of the values themselves. Neither set
    may be empty. Source: N. Smirnov, *Table for estimating the goodness of fit of empirical distributions*
    (1948), doi 10.1214/aoms/1177730256.
    """
    n_base, n_now = _n_values(base_CB), _n_values(now_CB)
    # Whole numbers up to the one division: exact, and below 2 ** 62 for 2 ** 30 values each.
    apart_CB = np.cumsum(base_CB, axis=1) * n_now - np.cumsum(now_CB, axis=1) * n_base
    greatest_C: Counts = np.abs(apart_CB).max(axis=1, initial=0)
    return greatest_C / np.float64(n_base * n_now)


def kolmogorov_smirnov_limit(n_base: int, n_now: int, alpha: float) -> float:
    """What two samples of one distribution exceed with a probability of at most about `alpha`.

    The usual asymptotic limit: the first term of Smirnov's series (doi 10.1214/aoms/1177730256) is `alpha`
    there. Ties, and values that the samples share, only make it less probable.
    """
    return math.sqrt(-math.log(alpha / 2) / 2 * (n_base + n_now) / (n_base * n_now))


def stability_index(base_CB: Counts, now_CB: Counts) -> npt.NDArray[np.float64]:
    """The population stability index of each row, psi_C, to six decimals.

    Bins are joined to at most ten groups of about equal mass in the baseline. Half a value is added to each
    group, so that an empty one does not make it infinite. Two samples of one distribution of n and m values
    have about 9 / n + 9 / m on average. Neither set may be empty. Source: B. Yurdakul, J. Naranjo,
    *Statistical properties of the population stability index* (2020), doi 10.21314/JRMV.2020.227.
    """
    n_base, n_now = _n_values(base_CB), _n_values(now_CB)
    middle_CB = 2 * np.cumsum(base_CB, axis=1) - base_CB
    group_CB = np.minimum(_GROUPS * middle_CB // (2 * n_base), _GROUPS - 1)
    base_CG = np.stack([np.where(group_CB == group, base_CB, 0).sum(axis=1) for group in range(_GROUPS)], 1)
    now_CG = np.stack([np.where(group_CB == group, now_CB, 0).sum(axis=1) for group in range(_GROUPS)], 1)
    used_CG = (base_CG > 0) | (now_CG > 0)
    more_C = used_CG.sum(axis=1, keepdims=True) / 2
    share_base_CG, share_now_CG = (base_CG + 0.5) / (n_base + more_C), (now_CG + 0.5) / (n_now + more_C)
    terms_CG = (share_now_CG - share_base_CG) * np.log(share_now_CG / share_base_CG)
    index_C: npt.NDArray[np.float64] = np.where(used_CG, terms_CG, 0).sum(axis=1)
    # Rounded, because the last bits of a logarithm are the machine's.
    return index_C.round(_DECIMALS)


def _n_values(counts_CB: Counts) -> int:
    """How many values each row has: all have as many."""
    return int(counts_CB[0].sum())
