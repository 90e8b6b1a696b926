"""An audit's statistics against their definitions, computed one value at a time."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.audit_records import (
    Scan,
    audit_job,
    layers_named,
    make_audit,
    places_of,
    plant,
    synthetic_scan,
    write_scan,
)
from tests.memory_store import MemoryStore
from worker.audit import merge_scan
from worker.audit.exact import ExactSums
from worker.audit.histogram import bins_of, lower_edges
from worker.audit.reading import Profiles, profiles_of
from worker.audit.statistics import LayerStatistics
from worker.audit.top_images import TopImages
from worker.contract import keys
from worker.contract.audits import atlas_chunks, read_plan
from worker.contract.errors import JobError, MessageError

Row = dict[str, Any]
(POOL1,) = layers_named(["pool1"])

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
PEAKS = st.one_of(
    FLOATS, st.sampled_from([0.0, -0.0, 1.0, 1.25, 2.0, 2.0**-149, 2.0**-126, 3.4028234663852886e38])
)


def reference_edge(value: float) -> float:
    """The lower edge of the quarter octave that a positive value lies in, from what an octave is."""
    octave = max(Fraction(2) ** (math.frexp(value)[1] - 1), Fraction(2) ** -126)
    step = octave / 4
    # Below the least normal number, octaves have no end: bins have all the same width.
    return float((Fraction(value) // step) * step)


def reference_moments(values: Sequence[float]) -> tuple[float, float]:
    numbers = [Fraction(value) for value in values]
    mean = sum(numbers, Fraction()) / len(numbers)
    variance = sum(((number - mean) ** 2 for number in numbers), Fraction()) / len(numbers)
    return float(mean), float(variance)


def reference_top(keys_and_peaks: Sequence[tuple[str, float]], top: int) -> list[tuple[str, float]]:
    winners = [pair for pair in keys_and_peaks if pair[1] > 0]
    return sorted(winners, key=lambda pair: (-pair[1], pair[0]))[:top]


def reference_rows(scan: Scan, top: int) -> list[Row]:
    """`statistics.parquet` from its definition: slow, and from nothing but the docs of the columns."""
    finite = [
        number not in scan.errors and all(np.isfinite(peaks[number]).all() for peaks in scan.peaks.values())
        for number in range(len(scan.images))
    ]
    rows = []
    for layer in scan.peaks:
        for unit in range(layer.channels):
            peaks = [
                float(peak) for peak, good in zip(scan.peaks[layer][:, unit], finite, strict=True) if good
            ]
            firing = [int(n) for n, good in zip(scan.firing[layer][:, unit], finite, strict=True) if good]
            image_keys = [
                keys.image_key(image) for image, good in zip(scan.images, finite, strict=True) if good
            ]
            mean, variance = reference_moments(peaks)
            edges = [reference_edge(peak) if peak > 0 else 0.0 for peak in peaks]
            winners = reference_top(list(zip(image_keys, peaks, strict=True)), top)
            firing_images = sum(peak > 0 for peak in peaks)
            always_on = sum(firing) == len(peaks) * places_of(layer)
            rows.append(
                {
                    "layer": layer.name,
                    "unit": unit,
                    "n_images": len(peaks),
                    "firing_images": firing_images,
                    "firing_rate": firing_images / len(peaks),
                    "firing_places": sum(firing) / (len(peaks) * places_of(layer)),
                    "mean": mean,
                    "variance": variance,
                    "max": max(peaks),
                    "histogram_edges": sorted(set(edges)),
                    "histogram_counts": [edges.count(edge) for edge in sorted(set(edges))],
                    "top_image_keys": [key for key, _ in winners],
                    "top_activations": [peak for _, peak in winners],
                    "specificity": None,
                    "training_effect": None,
                    "psi": None,
                    "ks": None,
                    "top_turnover": None,
                    "state": "dead" if not firing_images else "always-on" if always_on else "live",
                }
            )
    return rows


def merged(scan: Scan, shard_size: int, top: int = 9) -> MemoryStore:
    store = MemoryStore()
    job = audit_job(store, scan, shard_size=shard_size, top=top)
    write_scan(store, job, scan)
    merge_scan(store, job)
    return store


def rows_of(store: MemoryStore) -> list[Row]:
    rows: list[Row] = pq.ParquetFile(io.BytesIO(store.read(keys.STATISTICS))).read().to_pylist()
    return rows


def results_of(store: MemoryStore) -> dict[str, bytes]:
    return {key: store.read(key) for key in [keys.STATISTICS, *store.list("atlas/")]}


def odd_scan(n_images: int = 50, layers: Sequence[str] = ("pool1", "pool2")) -> Scan:
    """With ties, infinities, a failed image and planted facts."""
    scan = synthetic_scan(layers, n_images, seed=3)
    plant(scan)
    rng = np.random.default_rng(4)
    for layer, peaks in scan.peaks.items():
        scan.peaks[layer] = np.where(rng.random(peaks.shape) < 0.5, np.round(peaks), peaks).astype(np.float32)
        scan.peaks[layer][:, 9] = 2.5
        scan.peaks[layer][:, 10] *= np.float32(1e-44)
        scan.peaks[layer][:, 11] *= np.float32(1e34)
    first = next(iter(scan.peaks))
    scan.peaks[first][7, 3] = np.inf
    scan.peaks[first][8, 3] = np.nan
    return scan


def permuted(scan: Scan, order: npt.NDArray[np.int64]) -> Scan:
    return Scan(
        images=[scan.images[number] for number in order],
        sha256=[scan.sha256[number] for number in order],
        difference_hash=scan.difference_hash[order],
        peaks={layer: peaks[order] for layer, peaks in scan.peaks.items()},
        firing={layer: firing[order] for layer, firing in scan.firing.items()},
        errors={
            place: scan.errors[number] for place, number in enumerate(order.tolist()) if number in scan.errors
        },
    )


@settings(deadline=None)
@given(st.lists(PEAKS, min_size=1, max_size=20), st.data())
def test_mean_and_variance_are_the_exact_ones_rounded_once_in_whatever_portions_values_come(
    values: list[float], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(values))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(values)))))
    sums = ExactSums(2)
    for begin, end in zip([0, *cuts], [*cuts, len(values)], strict=True):
        column = np.array(order[begin:end], np.float32)
        sums.add(np.stack([column, -column], axis=1))
    mean, variance = reference_moments(values)
    mean_C, variance_C = sums.moments(len(values))
    assert mean_C.tolist() == [mean, -mean]
    assert variance_C.tolist() == [variance, variance]


def test_sums_do_not_overflow_at_two_to_the_thirty_of_the_greatest_values() -> None:
    sums = ExactSums(1)
    sums.add(np.array([[3.4028234663852886e38]], np.float32))
    for array in (sums._mantissas_CE, sums._squares_high_CE, sums._squares_low_CE):
        array *= 2**30
    mean_C, variance_C = sums.moments(2**30)
    assert mean_C.tolist() == [3.4028234663852886e38]
    assert variance_C.tolist() == [0]


@settings(deadline=None)
@given(st.lists(PEAKS, min_size=1))
def test_a_value_lies_in_the_quarter_octave_that_its_edge_begins(values: list[float]) -> None:
    edges = lower_edges(bins_of(np.array(values, np.float32))).tolist()
    assert edges == [reference_edge(value) if value > 0 else 0.0 for value in values]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([0.0, -0.0, -1.0, 0.5, 1.0, 1.5, 2.0]), min_size=1, max_size=30),
    st.integers(1, 5),
    st.data(),
)
def test_the_top_images_are_the_strongest_then_the_first_by_key_in_whatever_order_they_come(
    peaks: list[float], top: int, data: st.DataObject
) -> None:
    images = [(f"image-{number * 7919 % 1009:04d}", peak) for number, peak in enumerate(peaks)]
    order = data.draw(st.permutations(images))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(images)))))
    winners = TopImages(1, top)
    for begin, end in zip([0, *cuts], [*cuts, len(images)], strict=True):
        if part := order[begin:end]:
            winners.add(
                np.array([key for key, _ in part]), np.array([[peak] for _, peak in part], np.float32)
            )
    assert winners.of(0) == reference_top(images, top)
    assert winners.keys == {key for key, _ in reference_top(images, top)}


def test_statistics_are_those_of_the_definition() -> None:
    scan = odd_scan()
    assert rows_of(merged(scan, shard_size=16)) == reference_rows(scan, top=9)


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 60), st.integers(1, 25), st.randoms(use_true_random=False))
def test_no_byte_depends_on_shards_or_order(shard_size: int, top: int, random: Any) -> None:
    scan = odd_scan(layers=("pool1",))
    order = list(range(len(scan.images)))
    random.shuffle(order)
    expected = results_of(merged(scan, len(order), top))
    assert results_of(merged(permuted(scan, np.array(order)), shard_size, top)) == expected


@pytest.mark.parametrize("zeros", [(0.0, -0.0), (-0.0, 0.0)])
def test_the_greatest_of_both_zeros_is_the_positive_one(zeros: tuple[float, float]) -> None:
    statistics = LayerStatistics(POOL1, top=1)
    for number, zero in enumerate(zeros):
        profiles = Profiles(
            peaks_NC=np.full((1, 64), zero, np.float32),
            firing_NC=np.zeros((1, 64), np.int32),
            places_N=np.array([4]),
        )
        statistics.add(np.array([f"image-{number}"]), profiles)
    assert not np.signbit(statistics.table()["max"].to_numpy()).any()


def test_a_map_has_as_many_places_as_halving_without_remainders_leaves() -> None:
    (pool3,) = layers_named(["pool3"])
    images = pa.table(
        {
            "height": pa.array([47, 64], pa.int32()),
            "width": pa.array([63, 40], pa.int32()),
            "peak_pool3": pa.array([[0.0] * 256] * 2, pa.list_(pa.float32(), 256)),
            "firing_pool3": pa.array([[0] * 256] * 2, pa.list_(pa.int32(), 256)),
        }
    )
    assert profiles_of(images, pool3).places_N.tolist() == [5 * 7, 8 * 5]


def test_merging_twice_gives_the_same_bytes() -> None:
    store = MemoryStore()
    job = make_audit(store, layers=("pool1",), finish=False)
    merge_scan(store, job)
    first = results_of(store)
    merge_scan(store, job)
    assert results_of(store) == first


def test_plans_name_each_winner_of_their_units_once() -> None:
    scan = odd_scan()
    store = MemoryStore()
    job = audit_job(store, scan)
    write_scan(store, job, scan)
    merge_scan(store, job)
    sources = dict(
        zip(map(keys.image_key, scan.images), zip(scan.images, scan.sha256, strict=True), strict=True)
    )
    planned: dict[tuple[str, int, int], tuple[str, float]] = {}
    for chunk, (layer, units) in enumerate(atlas_chunks(job.layers)):
        lines = read_plan(store.read(keys.plan_key(chunk)), "plan")
        assert [line.key for line in lines] == sorted({line.key for line in lines})
        for line in lines:
            assert (line.image, line.sha256) == sources[line.key]
            for unit, rank, activation in line.winners:
                assert unit in units
                planned[layer.name, unit, rank] = line.key, activation
    assert planned == {
        (row["layer"], row["unit"], rank): (key, activation)
        for row in rows_of(store)
        for rank, (key, activation) in enumerate(
            zip(row["top_image_keys"], row["top_activations"], strict=True)
        )
    }


def test_the_statistics_are_written_after_the_plans() -> None:
    written: list[str] = []

    class Watched(MemoryStore):
        def write(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
            written.append(key)
            return super().write(key, data, if_absent=if_absent)

    store = Watched()
    job = make_audit(store, layers=("pool1",), finish=False)
    del written[:]
    merge_scan(store, job)
    assert written == [keys.plan_key(0), keys.STATISTICS]


def test_no_image_that_can_be_used_leaves_dead_units_and_empty_plans() -> None:
    scan = synthetic_scan(("pool1",), 3, seed=0)
    scan.errors = dict.fromkeys(range(3), ("ImageUnreadable", "broken"))
    store = merged(scan, shard_size=2)
    assert {(row["n_images"], row["mean"], row["max"], row["state"]) for row in rows_of(store)} == {
        (0, 0, 0, "dead")
    }
    assert store.read(keys.plan_key(0)) == b""


def test_a_missing_record_is_named() -> None:
    store = MemoryStore()
    job = make_audit(store, layers=("pool1",), n_images=40, shard_size=10, finish=False)
    store.delete(keys.shard_key(2))
    with pytest.raises(JobError, match=r"1 of 4 shards are not done, the first is 2; submit the job again"):
        merge_scan(store, job)
    assert not store.exists(keys.STATISTICS)


def test_shards_with_different_weights_are_refused() -> None:
    store = MemoryStore()
    scan = synthetic_scan(("pool1",), 20, seed=0)
    job = audit_job(store, scan, shard_size=10)
    write_scan(store, job, scan)
    other = MemoryStore()
    write_scan(other, job, scan, weights=f"/other.pth {'6' * 64}")
    store.write(keys.shard_key(1), other.read(keys.shard_key(1)))
    with pytest.raises(JobError, match=r"computed with different weights \(/other.pth 6+ and synthetic 5+\)"):
        merge_scan(store, job)


def test_weights_of_another_path_are_the_same_weights() -> None:
    store = MemoryStore()
    scan = synthetic_scan(("pool1",), 20, seed=0)
    job = audit_job(store, scan, shard_size=10)
    write_scan(store, job, scan)
    other = MemoryStore()
    write_scan(other, job, scan, weights=f"/other.pth {'5' * 64}")
    store.write(keys.shard_key(1), other.read(keys.shard_key(1)))
    merge_scan(store, job)


@pytest.mark.parametrize("data", [b"no parquet", b""])
def test_a_record_that_cannot_be_read_is_named(data: bytes) -> None:
    store = MemoryStore()
    job = make_audit(store, layers=("pool1",), finish=False)
    store.write(keys.shard_key(1), data)
    with pytest.raises(MessageError, match=r"shards/000001.parquet in memory: is no readable Parquet file"):
        merge_scan(store, job)


def test_a_record_of_other_layers_is_refused() -> None:
    store, other = MemoryStore(), MemoryStore()
    job = make_audit(store, layers=("pool1",), finish=False)
    make_audit(other, layers=("pool2",), finish=False)
    store.write(keys.shard_key(1), other.read(keys.shard_key(1)))
    with pytest.raises(MessageError, match=r"shards/000001.parquet in memory: has other columns"):
        merge_scan(store, job)


def test_a_job_that_is_no_audit_has_nothing_to_merge() -> None:
    store = MemoryStore()
    job = make_audit(store, layers=("pool1",), finish=False).model_copy(update={"audit": None})
    with pytest.raises(JobError, match="is no audit"):
        merge_scan(store, job)


def test_a_layer_without_images_has_a_row_a_unit() -> None:
    assert LayerStatistics(POOL1, top=9).table()["unit"].to_pylist() == list(range(64))
