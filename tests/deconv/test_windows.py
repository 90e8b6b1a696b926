"""Windows = the dense way, bit for bit; bands = one piece, bit for bit."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.deconv.common import net
from worker.contract.architectures import Layer, layers_of
from worker.contract.specs import LayerSpec
from worker.deconv.forward import Forward, forward
from worker.deconv.geometry import Box
from worker.deconv.projection import project_maps
from worker.deconv.selection import Seed
from worker.deconv.windows import project_windows

LAYERS = layers_of()
WHOLE = 2**40


@st.composite
def _seeds(draw: st.DrawFn, n_images: int, up: Forward) -> list[Seed]:
    """Any activations of any layers: corners, edges, middles, mixed in one batch."""
    seeds = []
    for _ in range(draw(st.integers(1, 6))):
        layer = LAYERS[draw(st.sampled_from(sorted(up.maps)))]
        image = draw(st.integers(0, n_images - 1))
        unit = draw(st.integers(0, layer.channels - 1))
        height, width = up.maps[layer.index].shape[2:]
        y = draw(st.sampled_from([0, height - 1]) | st.integers(0, height - 1))
        x = draw(st.sampled_from([0, width - 1]) | st.integers(0, width - 1))
        activation = float(up.maps[layer.index][image, unit, y, x])
        seeds.append(Seed(image, LayerSpec(layer, "unit", units=(unit,)), unit, y, x, activation))
    return seeds


def _densely(seed: Seed, up: Forward) -> torch.Tensor:
    index = seed.spec.layer.index
    kept = torch.zeros_like(up.maps[index])
    kept[seed.image, seed.unit, seed.y, seed.x] = seed.activation
    return project_maps(net("random:3").trunk, {index: kept}, up, WHOLE)[index][seed.image]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_windows_equal_the_dense_way_bit_for_bit(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(32, 90)), data.draw(st.integers(32, 90))
    n_images = data.draw(st.integers(1, 3))
    layers = data.draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=3, unique=True))
    x_NCHW = torch.randn(n_images, 3, height, width, generator=torch.Generator().manual_seed(height * width))
    with torch.inference_mode():
        up = forward(net("random:3").trunk, x_NCHW, layers, WHOLE)
        seeds = data.draw(_seeds(n_images, up))
        batch_elements = data.draw(st.sampled_from([1, 2**16, 2**22]))
        found: dict[int, tuple[Box, torch.Tensor]] = {
            index: (box, pixels)
            for patch in project_windows(net("random:3").trunk, seeds, up, batch_elements)
            for index, box, pixels in zip(patch.seeds, patch.boxes, patch.signal_NCHW, strict=True)
        }
        assert sorted(found) == list(range(len(seeds)))
        for index, seed in enumerate(seeds):
            box, pixels = found[index]
            dense = _densely(seed, up)
            assert torch.equal(pixels, dense[:, box.top : box.bottom, box.left : box.right])
            outside = dense.clone()
            outside[:, box.top : box.bottom, box.left : box.right] = 0
            assert not outside.any()


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(32, 130),
    width=st.integers(32, 70),
    layers=st.lists(st.sampled_from(LAYERS), min_size=1, max_size=4, unique=True),
    band_elements=st.sampled_from([1, 2**14, 2**17, 2**19]),
)
def test_bands_equal_one_piece_bit_for_bit(
    height: int, width: int, layers: list[Layer], band_elements: int
) -> None:
    x_NCHW = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height))
    trunk = net("random:3").trunk
    with torch.inference_mode():
        whole, bands = (forward(trunk, x_NCHW, layers, size) for size in (WHOLE, band_elements))
        assert whole.maps.keys() == bands.maps.keys() == {layer.index for layer in layers}
        for index, feature_map in whole.maps.items():
            assert torch.equal(feature_map, bands.maps[index])
        for block, switches_NCHW in whole.switches_NCHW.items():
            assert torch.equal(switches_NCHW, bands.switches_NCHW[block])
        down_whole, down_bands = (
            project_maps(trunk, whole.maps, whole, size) for size in (WHOLE, band_elements)
        )
        for index, pixels_NCHW in down_whole.items():
            assert torch.equal(pixels_NCHW, down_bands[index])
