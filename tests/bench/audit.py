"""What an audit costs: its scan against the plain forward pass, its atlas against Captum, and whether an
image of a large data set costs more than one of a small.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.bench.baselines import Captum, Place
from tests.bench.measure import OURS, Ratio, contest, interleaved, seconds
from tests.bench.parts import Disagreement, Row, plain_trunk
from tests.bench.setting import Setting
from tests.deconv.common import on_whole_image, photograph, relative_difference
from tests.unit.audits import make_audit, run
from worker.audit import finish_audit, merge_scan
from worker.contract.architectures import Layer, layers_by_name
from worker.contract.audits import AuditOptions
from worker.deconv import Reconstruction

POOLS = tuple(layers_by_name()[f"pool{number}"] for number in range(1, 6))
ATLAS_POOLS = POOLS[2:]
N_WINNERS = 9
N_UNITS = 32
MEASURED_UNITS = 2
"""Captum costs the same for every unit: so many are run, and the rest is multiplied out."""

N_BATCH = 8
SIZES = (1_000, 5_000, 20_000)
SIDE_PX = 32
SHARD_SIZE = 1_000
COST_LAYER = "pool5"
_MAX_DIFFERENCE = 1e-3


@dataclass(frozen=True)
class Cost:
    """Milliseconds an image of an audit with a stand-in network: of each step, and of all of them.

    `again_ms` is the scan of the same images once more, with this audit as the baseline.
    """

    n_images: int
    scan_ms: float
    tables_ms: float
    again_ms: float

    @property
    def ms(self) -> float:
        """The scan, and the tables of it."""
        return self.scan_ms + self.tables_ms


def ratios(setting: Setting) -> Iterator[Row]:
    """The scan, then the atlas of some layers."""
    yield scan(setting)
    for pool in ATLAS_POOLS:
        yield atlas(setting, pool)


def scan(setting: Setting) -> Row:
    """Profiles of all five pools, against a plain trunk that goes up to the last and gives its map."""
    x_NCHW = setting.x_channels_last_NCHW.repeat(N_BATCH // len(setting.x_NCHW), 1, 1, 1)
    plain = plain_trunk(setting)
    with torch.inference_mode():
        peak_NC = setting.net.profile(x_NCHW, POOLS)["pool5"].peak_NC
        difference = relative_difference(peak_NC, plain(x_NCHW).amax((2, 3)).cpu())
        if not difference < _MAX_DIFFERENCE:
            raise Disagreement(f"the scan's peaks differ by {difference:.1e}; a ratio would mean nothing")
        ratio = contest(
            lambda: setting.net.profile(x_NCHW, POOLS), lambda: plain(x_NCHW), "plain", quick=setting.quick
        )
    return Row("audit", f"scan, {N_BATCH} images", "plain trunk", ratio, difference)


def atlas(setting: Setting, pool: Layer) -> Row:
    """The winners of some units, nine each, on nine images: forward pass included, controls not."""
    size_px = setting.x_NCHW.shape[2]
    photographs_NHWC = torch.cat([photograph(number, size_px, size_px) for number in range(3)])
    images_NHWC = torch.cat([photographs_NHWC.roll(48 * turn, 2) for turn in range(N_WINNERS // 3)])
    x_NCHW = setting.net.normalise(images_NHWC).contiguous()
    units = range(N_UNITS)

    def ours() -> list[Reconstruction]:
        net = setting.net
        ascent = net.forward_units(x_NCHW, pool, [units] * len(x_NCHW))
        return net.single_activations(net.trunk, ascent.seeds, ascent.up)

    captum = Captum(setting.weights.state, x_NCHW, pool.index + 1)
    places = _by_unit(ours())
    difference = _difference(ours()[::N_UNITS], captum.reconstruct(places[0]), size_px)

    def one_round() -> dict[str, float]:
        theirs_s = seconds(lambda: [captum.reconstruct(places[unit]) for unit in range(MEASURED_UNITS)])
        return {OURS: seconds(ours), "Captum": theirs_s * N_UNITS / MEASURED_UNITS}

    ratio = Ratio.of(interleaved(one_round, quick=setting.quick), "Captum")
    case = f"{pool.name}, {N_UNITS} units x {N_WINNERS}"
    return Row("audit", case, "Captum", ratio, difference, N_UNITS, MEASURED_UNITS)


def costs(sizes: Sequence[int]) -> Iterator[Cost]:
    """Audits of small noise images, one after the other, by a network that takes no time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = _noise(folder / "images", max(sizes))
        for n_images in sizes:
            yield _cost(folder / f"{n_images}", images[:n_images])


def _cost(folder: Path, images: Sequence[Path]) -> Cost:
    options = AuditOptions(top=N_WINNERS)
    store, job = make_audit(folder / "first", images, options, layers=[COST_LAYER], shard_size=SHARD_SIZE)

    def tables() -> None:
        merge_scan(store, job)
        # The atlas costs the same however many images there are.
        atlas_s.append(
            seconds(lambda: [run(store, job, job.n_shards + n) for n in range(job.n_atlas_shards)])
        )
        finish_audit(store, job)

    atlas_s: list[float] = []
    scan_s = seconds(lambda: [run(store, job, shard) for shard in range(job.n_shards)])
    tables_s = seconds(tables) - atlas_s[0]
    again, same = make_audit(
        folder / "again",
        images,
        AuditOptions(top=N_WINNERS, baseline=store.place),
        layers=[COST_LAYER],
        shard_size=SHARD_SIZE,
    )
    again_s = seconds(lambda: [run(again, same, shard) for shard in range(same.n_shards)])
    ms = 1000 / len(images)
    return Cost(len(images), scan_s * ms, tables_s * ms, again_s * ms)


def _noise(folder: Path, n_images: int) -> list[Path]:
    folder.mkdir()
    random = np.random.default_rng(0)
    paths = [folder / f"{number:06d}.png" for number in range(n_images)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)).save(path)
    return paths


def _by_unit(results: Sequence[Reconstruction]) -> list[list[Place]]:
    """Results come by image; Captum wants each unit's place in every image."""
    return [
        [
            Place(one.unit or 0, one.y or 0, one.x or 0, one.activation or 0.0)
            for one in results[unit::N_UNITS]
        ]
        for unit in range(N_UNITS)
    ]


def _difference(results: Sequence[Reconstruction], pixels_NCHW: torch.Tensor, size_px: int) -> float:
    """The largest of one unit's reconstructions in all images."""
    difference = max(
        relative_difference(on_whole_image(one, size_px, size_px), pixels_CHW.cpu())
        for one, pixels_CHW in zip(results, pixels_NCHW, strict=True)
    )
    if not difference < _MAX_DIFFERENCE:
        raise Disagreement(f"the atlas differs from Captum's by {difference:.1e}; a ratio would mean nothing")
    return difference
