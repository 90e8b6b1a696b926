"""How far two histograms lie apart, against definitions and known values."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.audit.histogram import (
    Counts,
    Histograms,
    kolmogorov_smirnov,
    kolmogorov_smirnov_limit,
    stability_index,
)

SAMPLES = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.1, 1.3, 1.6, 1.9, 2.0, 64.0]), min_size=1, max_size=40)


def counts_of(values_NC: npt.NDArray[np.float64]) -> Counts:
    histograms = Histograms(values_NC.shape[1])
    histograms.add(values_NC.astype(np.float32))
    return histograms.counts_CB


def column(values: list[float]) -> Counts:
    return counts_of(np.array(values)[:, None])


def reference_ks(base: Counts, now: Counts) -> float:
    def share_up_to(counts: Counts, end: int) -> Fraction:
        return Fraction(int(counts[0, :end].sum()), int(counts.sum()))

    return float(max(abs(share_up_to(base, end) - share_up_to(now, end)) for end in range(base.shape[1] + 1)))


@settings(deadline=None)
@given(SAMPLES, SAMPLES)
def test_kolmogorov_smirnov_is_the_greatest_distance_of_the_distribution_functions(
    base: list[float], now: list[float]
) -> None:
    assert kolmogorov_smirnov(column(base), column(now)).tolist() == [reference_ks(column(base), column(now))]


def test_each_unit_is_compared_with_itself() -> None:
    base = counts_of(np.array([[0.0, 1.0], [0.0, 2.0]]))
    now = counts_of(np.array([[0.0, 2.0], [0.0, 2.0]]))
    assert kolmogorov_smirnov(base, now).tolist() == [0.0, 0.5]
    psi = stability_index(base, now)
    assert psi[0] == 0
    assert psi[1] > 0


def test_two_samples_of_one_distribution_exceed_the_limit_no_more_often_than_asked_for() -> None:
    rng = np.random.default_rng(0)
    base, now = (counts_of(np.maximum(rng.normal(0.5, 1, (size, 2000)), 0)) for size in (150, 300))
    for alpha in (0.05, 0.005):
        too_far = kolmogorov_smirnov(base, now) > kolmogorov_smirnov_limit(150, 300, alpha)
        assert too_far.mean() <= alpha
    shifted = counts_of(np.maximum(rng.normal(1.5, 1, (300, 2000)), 0))
    assert (kolmogorov_smirnov(base, shifted) > kolmogorov_smirnov_limit(150, 300, 1e-5)).mean() > 0.99


@pytest.mark.parametrize(
    ("n_base", "n_now", "alpha", "limit"), [(500, 500, 0.05, 0.08589), (1000, 200, 0.01, 0.12607)]
)
def test_the_limit_is_that_of_the_tables(n_base: int, n_now: int, alpha: float, limit: float) -> None:
    # The usual coefficients: 1.358 for 0.05, 1.628 for 0.01.
    assert kolmogorov_smirnov_limit(n_base, n_now, alpha) == pytest.approx(limit, abs=2e-5)


def test_the_stability_index_of_two_groups_is_the_one_computed_by_hand() -> None:
    base, now = column([1.0] * 50 + [8.0] * 50), column([1.0] * 90 + [8.0] * 10)
    expected = sum(
        (after - before) * math.log(after / before)
        for before, after in ((50.5 / 101, 90.5 / 101), (50.5 / 101, 10.5 / 101))
    )
    assert stability_index(base, now).tolist() == [round(expected, 6)]


def test_the_stability_index_joins_bins_to_ten_groups_of_equal_mass() -> None:
    # Twenty bins of one value each: neighbours of one group may change places, those of two may not.
    values = [2.0 ** (quarter // 4) * (1 + quarter % 4 / 4) for quarter in range(20)]
    swapped_within = [values[number ^ 1] for number in range(20)]
    assert stability_index(column(values), column(swapped_within)).tolist() == [0]
    assert stability_index(column(values), column([*values[2:], values[-1], values[-1]])) > 0
    lumped = [values[number & ~1] for number in range(20)]
    assert stability_index(column(values), column(lumped)).tolist() == [0]


@settings(deadline=None)
@given(SAMPLES)
def test_a_sample_has_not_drifted_from_itself(values: list[float]) -> None:
    assert stability_index(column(values), column(values)).tolist() == [0]


def test_the_stability_index_of_two_samples_of_one_distribution_is_as_small_as_stated() -> None:
    rng = np.random.default_rng(1)
    base, now = (counts_of(rng.lognormal(0, 1, (500, 1000))) for _ in range(2))
    psi = stability_index(base, now)
    assert psi.mean() == pytest.approx(9 / 500 + 9 / 500, rel=0.15)
    assert psi.max() < 0.25


@pytest.mark.parametrize("now", [[0.0] * 100, [64.0] * 100])
def test_a_distribution_that_has_moved_altogether_has_drifted_by_far(now: list[float]) -> None:
    base = column([1.0, 1.5, 2.0, 2.5] * 25)
    assert kolmogorov_smirnov(base, column(now)).tolist() == [1]
    assert stability_index(base, column(now)) > 1


def test_a_unit_that_comes_to_life_has_drifted() -> None:
    dead, live = column([0.0] * 100), column([0.0] * 20 + [1.0] * 80)
    assert stability_index(dead, live) > 1
    assert stability_index(live, dead) > 1
