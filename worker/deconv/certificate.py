"""What holds on this machine, with these weights, in this precision: as numbers, not as a promise.

Kernels differ from processor to processor and add in different orders, so the claims that the tests
hold on one machine are measured again where the work is done.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from worker.contract.architectures import layers_by_name
from worker.contract.specs import parse_spec
from worker.deconv.forward import forward
from worker.deconv.network import Deconvnet
from worker.deconv.projection import project_maps
from worker.deconv.selection import Seed, peaks_of, select
from worker.deconv.slow import project_slowly
from worker.deconv.windows import project_windows

_HEIGHT, _WIDTH = 97, 118
_POOLS = ("pool1", "pool2", "pool3", "pool4", "pool5")


@dataclass(frozen=True)
class Certificate:
    """Measured on seeded noise, two images of 97 x 118, after each of the five pools.

    `zero_in_zero_out`: the largest value that a map of zeros gives; must be 0.
    `fast_against_slow`: largest relative difference between whole maps projected the fast way and by
    torch's unpooling and transposed convolution, switches and seeds the same.
    `windows_against_dense`: largest absolute difference between a single activation's window and the
    same activation projected through the whole image, over the dense one's largest value; 0 = bit for bit.
    `activation_again`: largest relative difference between an activation recorded in a batch and the
    same one when its image runs alone.
    """

    device: str
    processor: str
    precision: str
    torch: str
    weights: str
    weights_sha256: str
    zero_in_zero_out: float
    fast_against_slow: float
    windows_against_dense: float
    activation_again: float

    def to_dict(self) -> dict[str, str | float]:
        """The same, for JSON."""
        return asdict(self)


def certify(net: Deconvnet) -> Certificate:
    """Measure. Takes some seconds on a CPU. No tolerance is applied: the numbers are for the reader."""
    noise = torch.randint(
        0, 256, (2, _HEIGHT, _WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    with net.computing():
        return _certify(net, net.prepared(net.normalise(noise)))


def _certify(net: Deconvnet, x_NCHW: Tensor) -> Certificate:
    layers = [layers_by_name(net.trunk.model)[pool] for pool in _POOLS]
    up = forward(net.trunk, x_NCHW, layers, net.budget.band_elements)
    maps = {layer.index: up.maps[layer.index] for layer in layers}
    fast = project_maps(net.trunk, maps, up, net.budget.band_elements)
    slow = {index: project_slowly(net.trunk, index, maps[index], up) for index in maps}
    zeros = {index: torch.zeros_like(seed) for index, seed in maps.items()}
    nothing = project_maps(net.trunk, zeros, up, net.budget.band_elements)

    specs = [parse_spec(f"{pool}:max", net.trunk.model) for pool in _POOLS]
    seeds = [seed for spec in specs for seed in select(spec, peaks_of(up.maps[spec.layer.index]))]
    dense = project_maps(net.trunk, _kept(seeds, maps), up, net.budget.band_elements)
    apart = [
        _largest(pixels_CHW - whole_CHW[:, box.top : box.bottom, box.left : box.right], whole_CHW)
        for patch in project_windows(net.trunk, seeds, up, net.budget.window_elements)
        for index, box, pixels_CHW in zip(patch.seeds, patch.boxes, patch.signal_NCHW, strict=True)
        for whole_CHW in [dense[seeds[index].spec.layer.index][seeds[index].image]]
    ]
    alone = forward(net.trunk, x_NCHW[:1], layers, net.budget.band_elements)
    again = [
        abs(seed.activation - float(alone.maps[seed.spec.layer.index][0, seed.unit, seed.y, seed.x]))
        / max(abs(seed.activation), 1e-30)
        for seed in seeds
        if seed.image == 0
    ]
    return Certificate(
        device=torch.cuda.get_device_name(net.device) if net.device.type == "cuda" else str(net.device),
        processor=platform.processor() or platform.machine(),
        precision=net.precision,
        torch=torch.__version__,
        weights=net.weights.name,
        weights_sha256=net.weights.sha256,
        zero_in_zero_out=max(float(pixels.abs().max()) for pixels in nothing.values()),
        fast_against_slow=max(_largest(fast[index] - slow[index], slow[index]) for index in maps),
        windows_against_dense=max(apart),
        activation_again=max(again),
    )


def _kept(seeds: Sequence[Seed], maps: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """The maps with nothing left but the seeds, of which each image and layer has one."""
    kept = {index: torch.zeros_like(map_NCHW) for index, map_NCHW in maps.items()}
    for seed in seeds:
        kept[seed.spec.layer.index][seed.image, seed.unit, seed.y, seed.x] = seed.activation
    return kept


def _largest(difference: Tensor, reference: Tensor) -> float:
    return float(difference.abs().max() / reference.abs().max().clamp_min(1e-30))
