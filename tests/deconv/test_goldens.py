"""Values that a person can compute on paper, and the mistakes that others made."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worker.contract.architectures import layers_of
from worker.contract.errors import DeviceError, ImageTooSmall, WeightsError
from worker.deconv import Deconvnet
from worker.deconv.geometry import Box, Padding, Size, receptive_window, whole
from worker.deconv.switches import max_pool, unpool
from worker.deconv.trunk import convolve
from worker.deconv.weights import HED, IMAGENET, Weights, WeightsInfo, random_weights

MAP_4X4 = torch.tensor(
    [
        [1.0, 2.0, 0.0, 7.0],
        [3.0, 4.0, 5.0, 6.0],
        [9.0, 8.0, 1.0, 1.0],
        [0.0, 2.0, 1.0, 1.0],
    ]
)[None, None]


def test_pool_and_unpool_of_a_4_by_4_map() -> None:
    pooled, switches = max_pool(MAP_4X4)
    assert pooled[0, 0].tolist() == [[4.0, 7.0], [9.0, 1.0]]
    assert switches[0, 0].tolist() == [[3, 1], [0, 0]]
    assert switches.dtype == torch.uint8
    unpooled = unpool(pooled, switches, Box(0, 0, 2, 2), Box(0, 0, 4, 4))
    assert unpooled[0, 0].tolist() == [
        [0.0, 0.0, 0.0, 7.0],
        [0.0, 4.0, 0.0, 0.0],
        [9.0, 0.0, 1.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
    ]


def test_an_odd_row_and_column_come_back_as_zeros_and_the_maxima_where_they_stood() -> None:
    odd = torch.nn.functional.pad(MAP_4X4, (0, 1, 0, 1), value=99.0)
    pooled, switches = max_pool(odd)
    unpooled = unpool(pooled, switches, Box(0, 0, 2, 2), Box(0, 0, 5, 5))
    assert unpooled[0, 0, 4].tolist() == [0.0] * 5
    assert unpooled[0, 0, :, 4].tolist() == [0.0] * 5
    assert unpooled[0, 0, 0, 3] == 7.0


def test_a_single_activation_paints_its_kernel_and_the_edge_cuts_it() -> None:
    kernel_OIHW = torch.arange(9.0).view(1, 1, 3, 3)
    back_OIHW = kernel_OIHW.flip(2, 3).transpose(0, 1)
    signal = torch.zeros(1, 1, 4, 4)
    signal[0, 0, 0, 1] = 2.0
    size = Size(4, 4)
    painted = convolve(signal, (back_OIHW,), None, Padding.between(whole(size), whole(size)), rectify=False)
    assert painted[0, 0].tolist() == [
        [6.0, 8.0, 10.0, 0.0],
        [12.0, 14.0, 16.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
    ]


@pytest.mark.parametrize(
    ("layer", "side"),
    [("conv1_1", 3), ("pool1", 6), ("pool2", 16), ("pool3", 44), ("pool4", 100), ("pool5", 212)],
)
def test_receptive_fields_have_the_sizes_that_the_paper_trail_gives(layer: str, side: int) -> None:
    layers = layers_of()
    index = next(entry.index for entry in layers if entry.name == layer)
    stride = layers[index].stride
    middle = 512 // stride
    window = receptive_window(layers[: index + 1], middle, middle, Size(1024, 1024))
    assert (window.right - window.left, window.bottom - window.top) == (side, side)


def _net_with(change: dict[str, Tensor]) -> Deconvnet:
    state = dict(random_weights("5").state) | change
    return Deconvnet(Weights(state, IMAGENET, WeightsInfo("test", "0" * 64, "test")))


def test_zero_in_is_zero_out_even_with_large_biases() -> None:
    # All kernels zero: the biases alone make the map 7 everywhere, and nothing of it may reach a pixel.
    zeros = {k: torch.zeros_like(v) for k, v in random_weights("5").state.items() if k.endswith("weight")}
    biases = {k: torch.full_like(v, 7.0) for k, v in random_weights("5").state.items() if k.endswith("bias")}
    whole_map, single = _net_with(zeros | biases).project(
        torch.randn(1, 3, 40, 40), ["pool3:all", "pool3:max"]
    )
    assert single.activation == 7.0
    assert not whole_map.pixels_CHW.any()
    assert not single.pixels_CHW.any()


def test_a_map_without_any_activation_gives_zeros() -> None:
    dead = {f"{i}.bias": torch.full((c,), -1e6) for i, c in [(2, 64)]}
    results = _net_with(dead).project(torch.randn(1, 3, 40, 40), ["pool1:all", "pool1:max", "pool1:top:2"])
    assert [r.activation for r in results] == [None, 0.0, 0.0, 0.0]
    assert not any(r.pixels_CHW.any() for r in results)


def test_the_input_is_not_overwritten_and_convolution_layers_keep_their_negative_values() -> None:
    x_NCHW = torch.randn(1, 3, 40, 40)
    before = x_NCHW.clone()
    net = Deconvnet(random_weights("5"))
    signed, rectified, pooled = net.project(x_NCHW, ["conv1_2:all", "relu1_2:all", "pool1:all"])
    assert torch.equal(x_NCHW, before)
    assert not torch.equal(signed.pixels_CHW, rectified.pixels_CHW)
    assert not torch.equal(pooled.pixels_CHW, rectified.pixels_CHW)


def test_non_finite_values_are_counted() -> None:
    huge = {"0.weight": random_weights("5").state["0.weight"] * 1e30}
    deep = {"2.weight": random_weights("5").state["2.weight"] * 1e20}
    (result,) = _net_with(huge | deep).project(torch.randn(1, 3, 40, 40), ["pool1:all"])
    assert result.nonfinite == int((~result.pixels_CHW.isfinite()).sum())
    assert result.nonfinite > 0


def test_infinite_values_in_a_window_are_counted() -> None:
    huge = {"0.weight": random_weights("5").state["0.weight"] * 1e30}
    deep = {"2.weight": random_weights("5").state["2.weight"] * 1e20}
    results = _net_with(huge | deep).project(torch.randn(2, 3, 40, 40), ["pool1:top:5"])
    assert [r.nonfinite for r in results] == [int((~r.pixels_CHW.isfinite()).sum()) for r in results]
    assert any(r.nonfinite for r in results)


def test_torchs_deterministic_mode_is_kept_and_changes_nothing() -> None:
    net, x_NCHW = Deconvnet(random_weights("5")), torch.randn(2, 3, 47, 40)
    specs = ["pool1:all", "pool3:all", "pool4:top:5", "relu2_1:max"]
    expected = net.project(x_NCHW, specs)
    torch.use_deterministic_algorithms(True)
    try:
        results = net.project(x_NCHW, specs)
    finally:
        torch.use_deterministic_algorithms(False)
    for result, same in zip(results, expected, strict=True):
        assert torch.equal(result.pixels_CHW, same.pixels_CHW)


def test_normalisation_is_done_once_in_rgb() -> None:
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 1, 1, 3)
    assert HED.apply(red).flatten().tolist() == pytest.approx([132.32108, -116.66877, -104.00699])
    assert IMAGENET.apply(red).flatten().tolist() == pytest.approx(
        [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    )


def test_an_image_that_is_too_small_is_refused_and_32_is_enough() -> None:
    net = Deconvnet(random_weights("5"))
    assert len(net.project(torch.randn(1, 3, 32, 32), ["pool5:max"])) == 1
    with pytest.raises(ImageTooSmall, match="31 x 40"):
        net.project(torch.randn(1, 3, 40, 31), ["pool1:max"])


def test_weights_of_another_model_are_refused_by_name() -> None:
    with pytest.raises(WeightsError, match=r"conv1_2.*another model"):
        Deconvnet(random_weights("5", "vgg11"))


def test_a_precision_or_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError, match="fp8"):
        Deconvnet.load("random:0", precision="fp8")  # type: ignore[arg-type]  # what a caller may do
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="DECONVOY_DEVICE"):
            Deconvnet.load("random:0", device="cuda")


def test_tf32_needs_a_gpu() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="tf32"):
            Deconvnet.load("random:0", precision="tf32", device="cpu")
