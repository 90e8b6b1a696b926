"""Costs, shard sizes and the request that a user's options settle."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from producer.planning import (
    PlanOptions,
    dense_gmac,
    image_gmac,
    make_plan,
    resolve_weights,
    shard_size_for,
    window_gmac,
)
from worker.contract.architectures import layers_by_name
from worker.contract.errors import SpecError, UsageError, WeightsError

# Counted by hand for VGG-16 at 224 x 224: (whole map, one window), in GMAC.
COSTS = {
    "pool1": (1.94, 0.00065),
    "pool2": (4.71, 0.0127),
    "pool3": (9.34, 0.195),
    "pool4": (13.96, 1.62),
    "pool5": (15.35, 9.93),
}


@pytest.mark.parametrize("pool", COSTS)
def test_costs_of_vgg16_are_those_counted_by_hand(pool: str) -> None:
    layer = layers_by_name()[pool]
    dense, window = COSTS[pool]

    assert dense_gmac("vgg16", layer, 224) == pytest.approx(dense, rel=0.01)
    assert window_gmac("vgg16", layer, 224) == pytest.approx(window, rel=0.01)


def test_the_ten_specs_of_the_article_cost_72_gmac_an_image() -> None:
    assert image_gmac(make_plan({}).request) == pytest.approx(72.5, rel=0.01)


@pytest.mark.parametrize(
    ("options", "n_images", "local", "shard_size"),
    [
        ({}, 100_000, False, 276),
        ({}, 6, False, 276),
        ({}, 6, True, 2),
        ({}, 1, True, 1),
        ({"specs": ["pool1:max"]}, 100_000, False, 1000),
        ({"size_px": 4096, "specs": ["pool5:top:512"]}, 100_000, False, 1),
        ({"shard_size": 7}, 8, True, 7),
    ],
)
def test_shards_hold_about_20_000_gmac(
    options: PlanOptions, n_images: int, local: bool, shard_size: int
) -> None:
    assert shard_size_for(make_plan(options), n_images, local=local) == shard_size


def test_specs_that_mean_the_same_give_the_same_request() -> None:
    by_index = make_plan({"specs": ["4:max", "pool1:max"]})

    assert by_index.request == make_plan({"specs": [" POOL1 : max"]}).request
    assert by_index.request.specs == ("pool1:max",)


def test_a_spec_that_is_none_is_refused() -> None:
    with pytest.raises(SpecError, match="pool6"):
        make_plan({"specs": ["pool6:max"]})


@pytest.mark.parametrize("options", [{"size_px": 31}, {"batch_size": 0}, {"shard_size": 100_001}])
def test_numbers_out_of_range_are_refused_and_named(options: PlanOptions) -> None:
    with pytest.raises(UsageError, match=str(next(iter(options.values())))):
        make_plan(options)


def test_a_file_of_weights_is_hashed_at_submission(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"weights")

    ref = resolve_weights(str(path))

    assert (ref.name, ref.sha256) == (str(path), hashlib.sha256(b"weights").hexdigest())


def test_named_weights_carry_the_hash_that_is_known() -> None:
    assert str(resolve_weights("hed").sha256).startswith("4502df9d0a88")
    assert resolve_weights("imagenet").sha256 is None
    assert resolve_weights("random:7").name == "random:7"


@pytest.mark.parametrize("weights", ["hedd", "random:", "random:-1", "random:x", "gone.pth", "net.h5", ""])
def test_weights_that_cannot_be_are_refused(weights: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="weights"):
        resolve_weights(weights and str(weights))


def test_a_format_that_there_is_not_is_refused_and_those_that_there_are_named() -> None:
    with pytest.raises(UsageError, match=r"option format cannot be 'jpeg': choose from png, webp, npy"):
        make_plan({"format": "jpeg"})
