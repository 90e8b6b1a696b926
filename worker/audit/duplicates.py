"""Images that are the same file, and images that are nearly the same picture.

Nearly the same are two different files whose difference hashes differ in at most `MAX_BITS` of 64 bits and
whose profiles, the standardised peaks of the deepest layer, have a cosine of at least `MIN_SIMILARITY`.
Pairs are found by their hashes without comparing all with all: if at most 5 bits differ, at least 3 of the
hash's 8 bytes are equal, so all that share some 3 bytes are compared. Two hashes of independent, even bits
are within 5 bits with a probability of 5e-13: a fifth of a pair among a million images. Those of photographs
are less even, which is why the profiles have to agree as well.
Source: M. Norouzi, A. Punjani, D. Fleet, *Fast Exact Search in Hamming Space with Multi-Index Hashing*
(arXiv 1307.2982), for finding close hashes by the parts that they share; the rest is our own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

MAX_BITS = 5
MIN_SIMILARITY = 0.8

NEIGHBOURS = 64
"""Of more hashes that share some 3 bytes, each is compared with so many that follow it in order; a pair that
lies further apart is found only by other bytes that it shares."""

EQUAL_NEIGHBOURS = 8
"""Of more images with one and the same hash (blank ones, say), each is compared with so many that follow."""

MAX_PAIRS = 20_000_000
"""Once so many pairs are found, no more are looked for, and the log says so."""

_EQUAL_BYTES = 3
_STEPS = 16
_BLOCK = 4096
_BITS_OF_BYTE = np.array([number.bit_count() for number in range(256)], np.uint8)
_log = logging.getLogger(__name__)


def candidate_pairs(hashes_N: Hashes) -> tuple[Integers, Integers]:
    """The P pairs of images whose hashes differ in at most `MAX_BITS`: the lesser number of each (P), and the
    greater (P).
    """
    codes: list[Integers] = []
    n_pairs = 0
    for first, second in _close(hashes_N):
        codes.append(np.minimum(first, second) * len(hashes_N) + np.maximum(first, second))
        n_pairs += len(first)
        if n_pairs > MAX_PAIRS:
            _log.warning(
                "more than %d pairs of images may be near-duplicates: not all are looked at", MAX_PAIRS
            )
            break
    if not n_pairs:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    pairs = np.unique(np.concatenate(codes))
    return pairs // len(hashes_N), pairs % len(hashes_N)


def steps_of(standardised_NV: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
    """Profiles in sixteenths of a standard deviation, at most 7.9 of them: a byte a unit (N, V)."""
    return np.clip(np.rint(standardised_NV * _STEPS), -127, 127).astype(np.int8)


def similar(steps_NV: npt.NDArray[np.int8], first_P: Integers, second_P: Integers) -> npt.NDArray[np.bool_]:
    """Of each pair of rows, whether the cosine of the two is at least `MIN_SIMILARITY` (P)."""
    result = np.zeros(len(first_P), np.bool_)
    for begin in range(0, len(first_P), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        # Whole numbers: the same on every machine, in whatever order they are added.
        one, other = steps_NV[first_P[block]].astype(np.int64), steps_NV[second_P[block]].astype(np.int64)
        squares = (one * one).sum(axis=1) * (other * other).sum(axis=1)
        result[block] = ((one * other).sum(axis=1) >= MIN_SIMILARITY * np.sqrt(squares)) & (squares > 0)
    return result


def groups_of(n: int, first_P: Integers, second_P: Integers) -> Integers:
    """Of each of `n` images (N), the least number among all that pairs join it with; its own if none does."""
    least = np.arange(n)
    while True:
        low = np.minimum(least[first_P], least[second_P])
        joined = least.copy()
        np.minimum.at(joined, least[first_P], low)
        np.minimum.at(joined, least[second_P], low)
        joined = joined[joined]
        if np.array_equal(joined, least):
            return least
        least = joined


def _close(hashes_N: Hashes) -> Iterator[tuple[Integers, Integers]]:
    """Pairs that differ in at most `MAX_BITS`; one may come several times."""
    order = np.argsort(hashes_N, kind="stable")
    in_order = hashes_N[order]
    for distance in range(1, EQUAL_NEIGHBOURS + 1):
        equal = np.flatnonzero(in_order[distance:] == in_order[:-distance])
        yield order[equal], order[equal + distance]
    for numbers in combinations(range(8), _EQUAL_BYTES):
        mask = np.uint64(sum(0xFF << 8 * number for number in numbers))
        by_bytes = np.argsort(in_order & mask, kind="stable")
        hashes, places = in_order[by_bytes], order[by_bytes]
        for distance in range(1, NEIGHBOURS + 1):
            differences = hashes[distance:] ^ hashes[:-distance]
            same = differences & mask == 0
            if not same.any():
                break
            begins = np.flatnonzero(same & (differences != 0))
            begins = begins[_n_bits(differences[begins]) <= MAX_BITS]
            yield places[begins], places[begins + distance]


def _n_bits(numbers: Hashes) -> Integers:
    n_bits: Integers = _BITS_OF_BYTE[numbers.view(np.uint8).reshape(-1, 8)].sum(axis=1, dtype=np.int64)
    return n_bits
