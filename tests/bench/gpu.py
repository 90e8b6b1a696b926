"""On a GPU only: images a second, and the share of what a large matrix product reaches on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from tests.bench.measure import seconds
from tests.bench.setting import N_IMAGES, Setting
from worker.contract.architectures import layers_by_name, layers_of
from worker.contract.specs import DEFAULT_SPECS
from worker.deconv.forward import forward
from worker.deconv.projection import project_maps

BATCH = 64
PEAK_SIDE = 8192


@dataclass(frozen=True)
class Rate:
    """`peak_share` is None for work that is more than convolutions over whole maps."""

    case: str
    images_per_s: float
    peak_share: float | None
    peak_tflops: float


def rates(setting: Setting) -> Iterator[Rate]:
    """Forward to pool5, `pool5:all` down, and the article's ten with all copies, in batches of 64."""
    trunk, pool5 = setting.net.trunk, layers_by_name()["pool5"]
    band_elements = setting.net.budget.band_elements
    repeats = 3 if setting.quick else 10
    peak = _peak_flops(trunk.dtype, repeats)
    x_NCHW = setting.x_channels_last_NCHW.repeat(BATCH // N_IMAGES, 1, 1, 1)
    x_NCHW = x_NCHW.contiguous(memory_format=torch.channels_last)
    flops = 2 * _multiply_adds(x_NCHW.shape[2], x_NCHW.shape[3])
    with torch.inference_mode():
        up = forward(trunk, x_NCHW, [pool5], band_elements)
        seeds = {pool5.index: up.maps[pool5.index]}
        up_s = min(seconds(lambda: forward(trunk, x_NCHW, [pool5], band_elements)) for _ in range(repeats))
        down_s = min(seconds(lambda: project_maps(trunk, seeds, up, band_elements)) for _ in range(repeats))
        ten_s = min(seconds(lambda: setting.net.project(x_NCHW, DEFAULT_SPECS)) for _ in range(repeats))
    for case, case_s in (("forward to pool5", up_s), ("pool5:all, way down", down_s)):
        yield Rate(case, BATCH / case_s, flops * BATCH / case_s / peak, peak / 1e12)
    yield Rate("the article's ten specs", BATCH / ten_s, None, peak / 1e12)


def _peak_flops(dtype: torch.dtype, repeats: int) -> float:
    """Operations a second of a large square matrix product: the best of several."""
    a, b = (torch.randn(PEAK_SIDE, PEAK_SIDE, device="cuda", dtype=dtype) for _ in range(2))
    return 2 * PEAK_SIDE**3 / min(seconds(lambda: a @ b) for _ in range(repeats + 1))


def _multiply_adds(height: int, width: int) -> int:
    """Of all convolutions of the trunk, for one image; the way down has as many."""
    return sum(
        9 * layer.in_channels * layer.channels * (height // layer.stride) * (width // layer.stride)
        for layer in layers_of()
        if layer.kind == "conv"
    )
