"""A small network in the place of VGG-16, and jobs to run it on.

Its "feature maps" are the input's channels times whole numbers, so that a test can compute every
activation, place, window and pixel by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from worker.contract import keys
from worker.contract.architectures import Layer, layers_of
from worker.contract.audits import AuditOptions
from worker.contract.jobs import Job, ManifestEntry, Request, fingerprint, manifest_bytes
from worker.contract.specs import LayerSpec
from worker.deconv.geometry import Size, receptive_window
from worker.storage import Store

MEAN = torch.tensor((123.675, 116.28, 103.53))
STD = torch.tensor((58.395, 57.12, 57.375))
RADIUS = 3


class Window(NamedTuple):
    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Reconstruction:
    image: int
    spec: LayerSpec
    unit: int | None
    y: int | None
    x: int | None
    activation: float | None
    window: Window
    pixels_CHW: torch.Tensor
    nonfinite: int


@dataclass(frozen=True)
class Weights:
    name: str = "stand-in"
    sha256: str = "0" * 64


@dataclass(frozen=True)
class Normalisation:
    pixel_std_C: tuple[float, float, float] = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Ascent:
    x_NCHW: torch.Tensor
    specs: tuple[LayerSpec, ...]


@dataclass(frozen=True)
class Profile:
    peak_NC: torch.Tensor
    firing_NC: torch.Tensor


@dataclass(frozen=True)
class UnitAscent:
    x_NCHW: torch.Tensor
    layer: Layer
    winners: tuple[tuple[int, int], ...]

    def parts(self, n_seeds: int) -> Iterator[UnitAscent]:
        for first in range(0, len(self.winners), n_seeds):
            yield replace(self, winners=self.winners[first : first + n_seeds])


@dataclass(frozen=True)
class Control:
    reconstruction: Reconstruction
    other_unit: Reconstruction
    random_weights: Reconstruction
    other_unit_similarity: float
    random_weights_similarity: float


class Controls:
    """The other unit's picture is half of the unit's, in BGR; random weights give its negative."""

    def of(self, ascent: UnitAscent) -> list[Control]:
        result = []
        for image, unit in ascent.winners:
            given = _window(image, ascent.x_NCHW[image], ascent.layer, unit)
            other = replace(given, pixels_CHW=given.pixels_CHW.flip(0) / 2)
            untrained = replace(given, pixels_CHW=-given.pixels_CHW)
            result.append(Control(given, other, untrained, 0.25, -1.0))
        return result


@dataclass
class StandInEngine:
    """Unit u is channel u % 3 times (1 + u); `all` is the input times the layer's block.

    `batches` records (number, height, width) of every call; images over `fits` raise `too_large`.
    """

    weights: Weights = Weights()
    normalisation: Normalisation = Normalisation()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    fits: int = 10_000
    too_large: type[Exception] | Exception = torch.OutOfMemoryError
    batches: list[tuple[int, int, int]] = field(default_factory=list)

    def normalise(self, images_NHWC: torch.Tensor) -> torch.Tensor:
        assert images_NHWC.dtype == torch.uint8
        return ((images_NHWC - MEAN) / STD).permute(0, 3, 1, 2).contiguous()

    def forward(self, x_NCHW: torch.Tensor, specs: Sequence[str | LayerSpec]) -> Ascent:
        if len(x_NCHW) > self.fits:
            raise self.too_large
        self.batches.append((len(x_NCHW), x_NCHW.shape[2], x_NCHW.shape[3]))
        return Ascent(x_NCHW, tuple(spec for spec in specs if isinstance(spec, LayerSpec)))

    def profile(self, x_NCHW: torch.Tensor, layers: Sequence[Layer]) -> dict[str, Profile]:
        if len(x_NCHW) > self.fits:
            raise self.too_large
        self.batches.append((len(x_NCHW), x_NCHW.shape[2], x_NCHW.shape[3]))
        peak_NC, firing_NC = x_NCHW.amax((2, 3)), (x_NCHW > 0).sum((2, 3))
        return {
            layer.name: Profile(
                peak_NC[:, units % 3] * (1 + units), firing_NC[:, units % 3] // layer.stride**2
            )
            for layer in layers
            for units in [torch.arange(layer.channels)]
        }

    def forward_units(
        self, x_NCHW: torch.Tensor, layer: Layer, units_by_image: Sequence[Sequence[int]]
    ) -> UnitAscent:
        if len(x_NCHW) > self.fits:
            raise self.too_large
        self.batches.append((len(x_NCHW), x_NCHW.shape[2], x_NCHW.shape[3]))
        winners = ((image, unit) for image, units in enumerate(units_by_image) for unit in units)
        return UnitAscent(x_NCHW, layer, tuple(winners))

    @property
    def controls(self) -> Controls:
        return Controls()

    def project_down(self, ascent: Ascent) -> list[Reconstruction]:
        return [
            reconstruction
            for image, x_CHW in enumerate(ascent.x_NCHW)
            for spec in ascent.specs
            for reconstruction in _reconstructions(image, x_CHW, spec)
        ]


def _reconstructions(image: int, x_CHW: torch.Tensor, spec: LayerSpec) -> list[Reconstruction]:
    _, height, width = x_CHW.shape
    if spec.is_whole_map:
        window = Window(0, 0, width, height)
        return [Reconstruction(image, spec, None, None, None, None, window, x_CHW * spec.layer.block, 0)]
    strongest = {unit: float(x_CHW[unit % 3].max()) * (1 + unit) for unit in range(spec.layer.channels)}
    ranked = sorted(strongest, key=lambda unit: -strongest[unit])
    units = spec.units or ranked[: spec.k or 1]
    result = []
    for unit in units:
        y, x = divmod(int(x_CHW[unit % 3].argmax()), width)
        window = Window(
            max(x - RADIUS, 0), max(y - RADIUS, 0), min(x + RADIUS + 1, width), min(y + RADIUS + 1, height)
        )
        pixels_CHW = x_CHW[:, window.top : window.bottom, window.left : window.right]
        result.append(Reconstruction(image, spec, unit, y, x, strongest[unit], window, pixels_CHW, 0))
    return result


def _window(image: int, x_CHW: torch.Tensor, layer: Layer, unit: int) -> Reconstruction:
    """As VGG would look at it: the window of a place of the layer, and the input there times 1 + the unit."""
    _, height, width = x_CHW.shape
    y, x = divmod(int(x_CHW[unit % 3].argmax()), width)
    y = min(y // layer.stride, height // layer.stride - 1)
    x = min(x // layer.stride, width // layer.stride - 1)
    window = Window(*receptive_window(layers_of()[: layer.index + 1], y, x, Size(height, width)))
    pixels_CHW = x_CHW[:, window.top : window.bottom, window.left : window.right] * (1 + unit)
    peak = float(x_CHW[unit % 3].max()) * (1 + unit)
    return Reconstruction(
        image, LayerSpec(layer, "unit", units=(unit,)), unit, y, x, peak, window, pixels_CHW, 0
    )


def make_job(
    store: Store,
    images: Sequence[Path | str],
    request: Request,
    *,
    shard_size: int = 1000,
    batch_size: int | None = None,
    audit: AuditOptions | None = None,
) -> Job:
    """A job with its manifest in `store`, as a producer leaves it."""
    names = [str(image) for image in images]
    n_shards = -(-len(names) // shard_size)
    for shard in range(n_shards):
        entries = [
            ManifestEntry(image=name, key=keys.image_key(name))
            for name in names[shard * shard_size : (shard + 1) * shard_size]
        ]
        store.write(keys.manifest_key(shard), manifest_bytes(entries))
    return Job(
        id="job-1",
        place=store.place,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        request=request,
        audit=audit,
        batch_size=batch_size,
        shard_size=shard_size,
        n_images=len(names),
        n_shards=n_shards,
        fingerprint=fingerprint(request, names),
    )


def noise_images(folder: Path, sizes: Sequence[tuple[int, int]]) -> list[Path]:
    """A PNG of noise for each (width, height), all different."""
    random = np.random.default_rng(0)
    paths = []
    for number, (width, height) in enumerate(sizes):
        path = folder / f"noise{number:04d}.png"
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(
            path, compress_level=0
        )
        paths.append(path)
    return paths
