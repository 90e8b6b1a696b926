"""What is measured. Each part yields rows as they are done; a full run takes minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.bench.baselines import BASELINES, ArticleLoop, Baseline, Place
from tests.bench.floor import replay
from tests.bench.measure import OURS, Ratio, Round, contest, interleaved, seconds
from tests.bench.setting import N_IMAGES, Setting
from tests.deconv.common import on_whole_image, relative_difference
from tests.oracle import trunk_module
from worker.contract.architectures import Layer, layers_by_name, layers_of
from worker.contract.specs import DEFAULT_SPECS
from worker.deconv import Reconstruction
from worker.deconv.forward import Forward, forward
from worker.deconv.projection import project_maps

MEASURED_UNITS = 2
"""A baseline costs the same for every unit, so this many are run and the rest is multiplied out."""

FLOOR = "its convolutions"
"""Our own convolutions with nothing between them: that ratio is the share that they are of our time."""

MAX_DIFFERENCE = 1e-3
"""Between two ways to one reconstruction; rounding may flip a pool's near-tie, nothing else may differ."""


@dataclass(frozen=True)
class Row:
    """One ratio. `difference` is the largest relative one between the results of the two sides;
    None for a floor, which has no result to compare.
    """

    part: str
    case: str
    against: str
    ratio: Ratio
    difference: float | None
    units: int | None = None
    baseline_units_measured: int | None = None


class Disagreement(AssertionError):
    """The two sides of a ratio do not compute the same thing."""


def units(setting: Setting, pools: Sequence[Layer], counts: Sequence[int]) -> Iterator[Row]:
    """`top:K`, forward pass included, against each baseline. Counts beyond the layer's units are left out."""
    for pool in pools:
        state, depth = setting.weights.state, pool.index + 1
        baselines = {name: build(state, setting.x_NCHW, depth) for name, build in BASELINES.items()}
        differences = {name: _difference(setting, pool, one) for name, one in baselines.items()}
        for count in (count for count in counts if count <= pool.channels):
            results = setting.net.project(setting.x_NCHW, [f"{pool.name}:top:{count}"])
            n_measured = count if setting.full else min(count, MEASURED_UNITS)
            ranks = _by_rank(results)[:n_measured]
            rounds = interleaved(_round_of_units(setting, pool, count, baselines, ranks), quick=setting.quick)
            yield Row("units", f"{pool.name} x {count}", FLOOR, Ratio.of(rounds, FLOOR), None, count)
            for name in baselines:
                ratio = Ratio.of(rounds, name)
                case = f"{pool.name} x {count}"
                yield Row("units", case, name, ratio, differences[name], count, n_measured)


def ten(setting: Setting) -> Iterator[Row]:
    """The article's ten specs in one call, against its loop: per pool forward, A and B densely back."""
    loops = [
        ArticleLoop(setting.weights.state, setting.x_NCHW, layer.index + 1)
        for layer in layers_of()
        if layer.kind == "pool"
    ]

    def ours() -> list[Reconstruction]:
        return setting.net.project(setting.x_NCHW, DEFAULT_SPECS)

    def theirs() -> list[Tensor]:
        return [pixels_NCHW for loop in loops for pixels_NCHW in loop.reconstruct_all_and_max()]

    # Both sides in one layout here: a flipped near-tie moves much more of a whole map than of one activation.
    same = [
        ArticleLoop(setting.weights.state, setting.x_channels_last_NCHW, layer.index + 1)
        for layer in layers_of()
        if layer.kind == "pool"
    ]
    expected = [pixels_NCHW for loop in same for pixels_NCHW in loop.reconstruct_all_and_max()]
    results = ours()
    difference = max(
        _checked("the article's ten", _whole(setting, result), expected[i % len(expected)][result.image])
        for i, result in enumerate(results)
    )
    ratio = contest(ours, theirs, "article", quick=setting.quick)
    yield Row("ten", "the article's ten specs", "article", ratio, difference)


def whole_maps(setting: Setting, pools: Sequence[Layer]) -> Iterator[Row]:
    """The way down of `all` alone, against its convolutions alone: no unpooling, no ReLU."""
    for pool in pools:
        with torch.inference_mode():
            up = forward(
                setting.net.trunk, setting.x_channels_last_NCHW, [pool], setting.net.budget.band_elements
            )
            ours = _way_down(setting, pool, up)
            floor = _bare_convolutions(setting, pool, up)
            if ours().shape != floor().shape:
                raise Disagreement(f"{pool.name}:all and its floor end in different shapes")
            ratio = contest(ours, floor, "floor", quick=setting.quick)
        yield Row("all", f"{pool.name}:all", "bare convolutions", ratio, None)


def pass_up(setting: Setting) -> Iterator[Row]:
    """The forward pass to pool5 with switches, against the plain trunk, both channels last."""
    pool5 = layers_by_name()["pool5"]
    plain = plain_trunk(setting)
    x_NCHW = setting.x_channels_last_NCHW
    with torch.inference_mode():

        def ours() -> Tensor:
            return forward(setting.net.trunk, x_NCHW, [pool5], setting.net.budget.band_elements).maps[
                pool5.index
            ]

        difference = _checked("the forward pass", ours(), plain(x_NCHW))
        ratio = contest(ours, lambda: plain(x_NCHW), "plain", quick=setting.quick)
    yield Row("forward", "to pool5, with switches", "plain trunk", ratio, difference)


def plain_trunk(setting: Setting) -> nn.Module:
    """torchvision's layers to pool5 with the same weights, channels last, as quick as torch runs them."""
    plain = trunk_module(setting.weights.state, layers_by_name()["pool5"].index + 1)
    for module in plain:
        if isinstance(module, nn.ReLU):
            module.inplace = True
    return plain.to(setting.net.device).to(memory_format=torch.channels_last)


def _round_of_units(
    setting: Setting,
    pool: Layer,
    count: int,
    baselines: dict[str, Baseline],
    ranks: Sequence[Sequence[Place]],
) -> Callable[[], Round]:
    def reconstruct_each(baseline: Baseline) -> None:
        for places_N in ranks:
            baseline.reconstruct(places_N)

    def work() -> object:
        return setting.net.project(setting.x_NCHW, [f"{pool.name}:top:{count}"])

    convolutions_alone = replay(work)

    def one_round() -> Round:
        found = {OURS: seconds(work), FLOOR: seconds(convolutions_alone)}
        for name, baseline in baselines.items():
            shared_s = seconds(baseline.prepare)
            found[name] = shared_s + seconds(lambda: reconstruct_each(baseline)) * count / len(ranks)  # noqa: B023  (called at once)
        return found

    return one_round


def _by_rank(results: Sequence[Reconstruction]) -> list[tuple[Place, ...]]:
    """Results come by image; a baseline wants the first unit of every image, then the second, …."""
    places = []
    for result in results:
        assert result.unit is not None
        assert result.y is not None
        assert result.x is not None
        assert result.activation is not None
        places.append(Place(result.unit, result.y, result.x, result.activation))
    per_image = len(places) // N_IMAGES
    return list(zip(*(places[n * per_image : (n + 1) * per_image] for n in range(N_IMAGES)), strict=True))


def _difference(setting: Setting, pool: Layer, baseline: Baseline) -> float:
    """Largest difference of the strongest unit's reconstructions, over both images."""
    results = setting.net.project(setting.x_NCHW, [f"{pool.name}:top:1"])
    baseline.prepare()
    (places_N,) = _by_rank(results)
    pixels_NCHW = baseline.reconstruct(places_N)
    what = f"{pool.name} and {type(baseline).__name__}"
    return max(_checked(what, _whole(setting, one), pixels_NCHW[one.image]) for one in results)


def _whole(setting: Setting, result: Reconstruction) -> Tensor:
    return on_whole_image(result, *setting.x_NCHW.shape[2:])


def _checked(what: str, ours: Tensor, theirs: Tensor) -> float:
    difference = relative_difference(ours.cpu(), theirs.cpu())
    if not difference < MAX_DIFFERENCE:
        raise Disagreement(f"{what}: results differ by {difference:.1e}; a ratio would mean nothing")
    return difference


def _way_down(setting: Setting, pool: Layer, up: Forward) -> Callable[[], Tensor]:
    seeds = {pool.index: up.maps[pool.index]}
    return lambda: project_maps(setting.net.trunk, seeds, up, setting.net.budget.band_elements)[pool.index]


def _bare_convolutions(setting: Setting, pool: Layer, up: Forward) -> Callable[[], Tensor]:
    """The same kernels on maps of the same sizes; every block gets a map that lies ready."""
    blocks = setting.net.trunk.blocks[: pool.block][::-1]
    inputs = [
        torch.rand(
            N_IMAGES, block.pool.channels, *up.sizes[block.number - 1], device=setting.net.device
        ).contiguous(memory_format=torch.channels_last)
        for block in blocks
    ]

    kernels = [
        [torch.cat(convolution.back, 1) for convolution in reversed(block.convolutions)] for block in blocks
    ]

    def run() -> Tensor:
        for kernels_OIHW, signal_NCHW in zip(kernels, inputs, strict=True):
            for kernel_OIHW in kernels_OIHW:
                signal_NCHW = F.conv2d(signal_NCHW, kernel_OIHW, padding=1)
        return signal_NCHW

    return run
