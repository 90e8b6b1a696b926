"""Pairs of close hashes against a comparison of all with all."""

from __future__ import annotations

import logging
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.audit import duplicates
from worker.audit.duplicates import MAX_BITS, candidate_pairs, groups_of, similar, steps_of

Pairs = list[tuple[int, int]]


def found(hashes: list[int]) -> Pairs:
    first, second = candidate_pairs(np.array(hashes, np.uint64))
    return list(zip(first.tolist(), second.tolist(), strict=True))


def all_with_all(hashes: list[int]) -> Pairs:
    return [
        (one, other)
        for one, other in combinations(range(len(hashes)), 2)
        if (hashes[one] ^ hashes[other]).bit_count() <= MAX_BITS
    ]


def flipped(number: int, bits: set[int]) -> int:
    return number ^ sum(1 << bit for bit in bits)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 63), max_size=7)), max_size=20),
)
def test_all_pairs_within_the_stated_distance_are_found(
    origins: list[int], copies: list[tuple[int, set[int]]]
) -> None:
    hashes = origins + [flipped(origins[number % len(origins)], bits) for number, bits in copies]
    # Of equal hashes, only so many neighbours are compared.
    hashes = list(dict.fromkeys(hashes))
    assert found(hashes) == all_with_all(hashes)


def test_all_pairs_are_found_among_many_images() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 1500, np.uint64).tolist()
    for number in range(0, 500, 2):
        hashes[1499 - number] = flipped(hashes[number], set(rng.integers(0, 64, number % 7).tolist()))
    assert found(hashes) == all_with_all(hashes)


def test_no_image_and_one_image_make_no_pair() -> None:
    assert found([]) == found([7]) == []


def test_equal_hashes_are_one_chain_however_many_there_are() -> None:
    first, second = candidate_pairs(np.zeros(2000, np.uint64))
    assert len(first) < 2000 * duplicates.EQUAL_NEIGHBOURS
    assert groups_of(2000, first, second).tolist() == [0] * 2000


def test_a_crowd_of_close_hashes_costs_no_more_than_so_many_neighbours_each() -> None:
    # 1,024 hashes that agree in 54 of 64 bits: half a million pairs, most of them within 5 bits.
    hashes = np.arange(1024, dtype=np.uint64)
    first, second = candidate_pairs(hashes)
    assert len(first) <= 2 * 1024 * duplicates.NEIGHBOURS
    assert set(groups_of(1024, first, second).tolist()) == {0}


def test_no_more_pairs_than_the_limit_are_looked_for_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(duplicates, "MAX_PAIRS", 100)
    with caplog.at_level(logging.WARNING):
        first, _ = candidate_pairs(np.zeros(60, np.uint64))
    assert 100 < len(first) <= 160
    assert caplog.messages == ["more than 100 pairs of images may be near-duplicates: not all are looked at"]


@settings(deadline=None)
@given(st.integers(1, 12), st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=20))
def test_groups_are_the_connected_parts_named_by_their_least(n: int, pairs: Pairs) -> None:
    pairs = [(one % n, other % n) for one, other in pairs]
    expected = list(range(n))
    for _ in range(n):
        for one, other in pairs:
            expected[one] = expected[other] = min(expected[one], expected[other])
    numbers = np.array(pairs, np.int64).reshape(-1, 2)
    assert groups_of(n, numbers[:, 0], numbers[:, 1]).tolist() == expected


def test_a_long_chain_is_one_group() -> None:
    order = np.random.default_rng(0).permutation(5000)
    assert not groups_of(5000, order[:-1], order[1:]).any()


def test_profiles_are_similar_from_a_cosine_of_four_fifths_on() -> None:
    rng = np.random.default_rng(0)
    profile_NV = rng.standard_normal((5000, 300))
    noise = rng.standard_normal(profile_NV.shape) * rng.uniform(0, 1.5, (5000, 1))
    both = np.concatenate([profile_NV, profile_NV + noise])
    cosine = (both[:5000] * both[5000:]).sum(axis=1) / (_norm(both[:5000]) * _norm(both[5000:]))
    numbers = np.arange(5000)
    alike = similar(steps_of(both), numbers, numbers + 5000)
    # A sixteenth of a standard deviation is a step: what is nearly at the limit may fall on either side.
    clear = np.abs(cosine - 0.8) > 0.005
    assert clear.mean() > 0.9
    assert (alike == (cosine > 0.8))[clear].all()


def test_independent_profiles_are_never_similar() -> None:
    steps_NV = steps_of(np.random.default_rng(0).standard_normal((1000, 512)))
    first, second = np.triu_indices(1000, 1)
    assert not similar(steps_NV, first[:20_000], second[:20_000]).any()


def test_profiles_without_anything_unusual_are_not_similar() -> None:
    assert similar(np.zeros((2, 5), np.int8), np.array([0]), np.array([1])).tolist() == [False]


def _norm(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    norm: npt.NDArray[np.float64] = np.linalg.norm(rows, axis=1)
    return norm
