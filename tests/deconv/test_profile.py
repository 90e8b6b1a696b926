"""Profiles: what a plain maximum and a plain count over the whole map say, whatever the batch."""

from __future__ import annotations

import pytest
import torch

from tests.deconv.common import net
from worker.contract.architectures import layers_by_name, layers_of
from worker.contract.errors import ImageTooSmall
from worker.deconv.forward import forward
from worker.deconv.profile import profile_of

LAYERS = layers_of()


def _noise(n: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(height + width))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (67, 45)])
def test_peaks_and_places_that_fire_are_those_of_the_whole_map(height: int, width: int) -> None:
    network = net("random:0")
    x_NCHW = _noise(2, height, width)
    profiles = network.profile(x_NCHW, LAYERS)
    with torch.inference_mode():
        up = forward(network.trunk, network.prepared(x_NCHW), LAYERS, 2**40)
    assert list(profiles) == [layer.name for layer in LAYERS]
    for layer in LAYERS:
        map_NCHW = up.maps[layer.index].contiguous()
        profile = profiles[layer.name]
        assert torch.equal(profile.peak_NC, torch.amax(map_NCHW, (2, 3)))
        assert torch.equal(profile.firing_NC, (map_NCHW > 0).sum((2, 3)))
        assert (profile.peak_NC.dtype, profile.firing_NC.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize("band_elements", [1, 2**40])
def test_a_pass_up_without_a_way_back_has_the_same_maps_and_no_switches(band_elements: int) -> None:
    network = net("random:0")
    with torch.inference_mode():
        x_NCHW = network.prepared(_noise(2, 45, 38))
        both_ways = forward(network.trunk, x_NCHW, LAYERS, band_elements)
        up_only = forward(network.trunk, x_NCHW, LAYERS, band_elements, way_back=False)
    assert up_only.switches_NCHW == {}
    assert up_only.maps.keys() == both_ways.maps.keys()
    assert all(torch.equal(up_only.maps[index], map_NCHW) for index, map_NCHW in both_ways.maps.items())


def test_an_images_profile_is_the_same_bits_in_whatever_batch_it_goes_up() -> None:
    network = net("random:0")
    x_NCHW = _noise(8, 64, 64)
    whole = network.profile(x_NCHW, LAYERS)
    for size in (1, 2, 3):
        parts = [network.profile(part_NCHW, LAYERS) for part_NCHW in torch.split(x_NCHW, size)]
        for name, profile in whole.items():
            peak_NC = torch.cat([part[name].peak_NC for part in parts])
            assert torch.equal(peak_NC.view(torch.int32), profile.peak_NC.view(torch.int32))
            assert torch.equal(torch.cat([part[name].firing_NC for part in parts]), profile.firing_NC)


def test_nan_shows_in_the_peaks_of_its_own_image_alone() -> None:
    x_NCHW = _noise(2, 32, 32)
    x_NCHW[0, 1, 5, 5] = torch.nan
    profiles = net("random:0").profile(x_NCHW, [layers_by_name()["conv1_1"]])
    assert profiles["conv1_1"].peak_NC[0].isnan().all()
    assert profiles["conv1_1"].peak_NC[1].isfinite().all()


def test_of_both_zeros_the_positive_one_is_the_peak() -> None:
    profile = profile_of(torch.full((1, 2, 3, 3), -0.0))
    assert not profile.peak_NC.signbit().any()
    assert not profile.firing_NC.any()


def test_named_units_are_the_peaks_of_their_own_images() -> None:
    network = net("random:0")
    layer = layers_by_name()["pool3"]
    x_NCHW = _noise(3, 64, 48)
    ascent = network.forward_units(x_NCHW, layer, [[7, 200], [], [3, 7, 9]])
    assert [(seed.image, seed.unit) for seed in ascent.seeds] == [(0, 7), (0, 200), (2, 3), (2, 7), (2, 9)]
    peak_NC = network.profile(x_NCHW, [layer])["pool3"].peak_NC
    assert [seed.activation for seed in ascent.seeds] == [
        float(peak_NC[s.image, s.unit]) for s in ascent.seeds
    ]
    results = [control.reconstruction for control in network.controls.of(ascent)]
    expected = [
        result
        for image, units in ((0, "7,200"), (2, "3,7,9"))
        for result in network.project(x_NCHW, [f"pool3:unit:{units}"])
        if result.image == image
    ]
    for result, same in zip(results, expected, strict=True):
        assert (result.image, result.unit, result.y, result.x) == (same.image, same.unit, same.y, same.x)
        assert torch.equal(result.pixels_CHW, same.pixels_CHW)


def test_parts_of_a_pass_up_give_the_same_controls_as_the_whole() -> None:
    network = net("random:0")
    ascent = network.forward_units(_noise(2, 48, 48), layers_by_name()["pool2"], [[1, 2, 3], [4, 5]])
    whole = network.controls.of(ascent)
    parts = [control for part in ascent.parts(2) for control in network.controls.of(part)]
    assert [len(part.seeds) for part in ascent.parts(2)] == [2, 2, 1]
    for control, same in zip(parts, whole, strict=True):
        assert torch.equal(control.reconstruction.pixels_CHW, same.reconstruction.pixels_CHW)
        assert control.other_unit_similarity == same.other_unit_similarity
        assert control.random_weights_similarity == same.random_weights_similarity


def test_an_image_that_is_too_small_has_no_profile() -> None:
    with pytest.raises(ImageTooSmall, match="31 x 40"):
        net("random:0").profile(_noise(1, 40, 31), [layers_by_name()["pool1"]])
