"""The deconvnet as one object: weights, a device, and images up and activations down."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from worker.contract.architectures import DEFAULT_MODEL, MIN_IMAGE_SIZE, Layer, layers_of
from worker.contract.errors import DeviceError, ImageTooSmall
from worker.contract.jobs import Precision
from worker.contract.specs import LayerSpec, parse_spec
from worker.deconv.control import Controls
from worker.deconv.forward import Forward, forward
from worker.deconv.geometry import Box, Size, Window, receptive_window, whole
from worker.deconv.memory import Budget, budget_of
from worker.deconv.profile import Profile, profile_of
from worker.deconv.projection import project_maps
from worker.deconv.selection import Seed, peaks_of, seed_of, select
from worker.deconv.trunk import Trunk
from worker.deconv.weights import Normalisation, Weights, WeightsInfo, load_weights
from worker.deconv.windows import Patch, project_windows


@dataclass(frozen=True)
class Reconstruction:
    """What one activation, or one whole feature map, looks like in pixels.

    `image` is the image's number in the batch. `unit`, place (`y`, `x`) and `activation` are None for
    `all`. `pixels_CHW` (3, H, W) is float32 on the CPU, RGB, signed, in network-input units, on `window`
    only; outside it the reconstruction is zero. `nonfinite` counts its NaN and infinite values. Times
    `pixel_std_C`, a factor a channel, `pixels_CHW` is in units of 0-255 pixels.
    """

    image: int
    spec: LayerSpec
    unit: int | None
    y: int | None
    x: int | None
    activation: float | None
    window: Window
    pixels_CHW: Tensor
    nonfinite: int
    pixel_std_C: tuple[float, float, float]

    def __repr__(self) -> str:
        parts = [f"image {self.image}"]
        if self.unit is not None:
            parts.append(f"unit {self.unit} at y {self.y}, x {self.x}, activation {self.activation:.4g}")
        left, top, right, bottom = self.window
        parts.append(f"window ({left}, {top}) to ({right}, {bottom})")
        parts.append(f"pixels_CHW {' x '.join(map(str, self.pixels_CHW.shape))}")
        if self.nonfinite:
            parts.append(f"{self.nonfinite} not finite")
        return f"<Reconstruction {self.spec}: {', '.join(parts)}>"

    def _repr_png_(self) -> bytes:
        """A notebook shows this: the picture that a job would store."""
        from worker.display import as_png, display  # numpy and Pillow are needed here only

        return as_png(display(self.pixels_CHW.numpy(), self.pixel_std_C)[0])


@dataclass(frozen=True)
class Ascent:
    """A batch after its pass up: what that left behind, the specs, and the activations they keep."""

    up: Forward
    specs: tuple[LayerSpec, ...]
    seeds: tuple[Seed, ...]

    def __repr__(self) -> str:
        height, width = self.up.sizes[0]
        specs = ", ".join(map(str, self.specs))
        return f"<Ascent of {self.up.n_images} images, {height} x {width}: {specs}; {len(self.seeds)} seeds>"

    def parts(self, n_seeds: int) -> Iterator[Ascent]:
        """The same pass up with at most `n_seeds` of its single activations each, in their order."""
        for first in range(0, len(self.seeds), n_seeds):
            yield replace(self, seeds=self.seeds[first : first + n_seeds])


class Deconvnet:
    """A VGG trunk with the way back to pixels. Source: Zeiler & Fergus, arXiv 1311.2901, section 2.

    >>> net = Deconvnet.load("hed")
    >>> results = net.project(net.normalise(images_NHWC), ["pool5:max", "pool3:top:4"])
    """

    def __init__(
        self, weights: Weights, model: str = DEFAULT_MODEL, device: str = "cpu", precision: Precision = "fp32"
    ) -> None:
        self.weights: WeightsInfo = weights.info
        self.normalisation: Normalisation = weights.normalisation
        self.device = _device(device)
        self.precision = precision
        self.trunk = Trunk.build(model, weights.state, self.device, _dtype(precision, self.device))

    def __repr__(self) -> str:
        return (
            f"<Deconvnet {self.trunk.model}, weights {self.weights.name}, {self.precision} on {self.device}>"
        )

    @classmethod
    def load(
        cls,
        weights: str,
        *,
        model: str = DEFAULT_MODEL,
        device: str = "auto",
        precision: Precision = "fp32",
        cache_dir: Path | None = None,
    ) -> Self:
        """Load `hed`, `imagenet`, `random:SEED` or a file. Raises WeightsError, DeviceError.

        `fp32` is the reference; `tf32` rounds products to 10 bits on an NVIDIA GPU's tensor cores; `bf16`
        keeps everything in 8 bits of mantissa.
        """
        return cls(load_weights(weights, model, cache_dir), model, device, precision)

    @property
    def budget(self) -> Budget:
        """How much may be in flight at once, by the memory that is free now."""
        return budget_of(self.device)

    def normalise(self, images_NHWC: Tensor) -> Tensor:
        """Make network input, x_NCHW float32 on the device, of RGB images (uint8, N, H, W, 3)."""
        if self.device.type == "cuda":
            # From pinned memory the copy runs beside what the device still does.
            images_NHWC = images_NHWC.pin_memory()
        return self.normalisation.apply(images_NHWC.to(self.device, non_blocking=True))

    def project(self, x_NCHW: Tensor, specs: Sequence[str | LayerSpec]) -> list[Reconstruction]:
        """Run a batch forward once and project all that `specs` keep of it back to pixels.

        `x_NCHW` is float32 network input, at least 32 x 32. Results come by image, then by spec as
        given (twice the same counts once), then by unit (`top`: strongest first; `unit`: as named).
        Raises SpecError, ImageTooSmall.
        """
        return self.project_down(self.forward(x_NCHW, specs))

    def forward(self, x_NCHW: Tensor, specs: Sequence[str | LayerSpec]) -> Ascent:
        """The first half of `project`: the pass up, and which activations `specs` keep of it."""
        parsed = dict.fromkeys(
            parse_spec(spec, self.trunk.model) if isinstance(spec, str) else spec for spec in specs
        )
        with self.computing():
            up = self._up(x_NCHW, [spec.layer for spec in parsed])
            windows = [spec for spec in parsed if not spec.is_whole_map]
            peaks = {index: peaks_of(up.maps[index]) for index in {spec.layer.index for spec in windows}}
            seeds = tuple(seed for spec in windows for seed in select(spec, peaks[spec.layer.index]))
        return Ascent(up, tuple(parsed), seeds)

    def forward_units(self, x_NCHW: Tensor, layer: Layer, units_by_image: Sequence[Sequence[int]]) -> Ascent:
        """The pass up of a batch, and for each image the peaks of its own units of `layer`.

        The activations that it keeps come by image, then by unit as named. Raises ImageTooSmall.
        """
        specs = {unit: LayerSpec(layer, "unit", units=(unit,)) for units in units_by_image for unit in units}
        with self.computing():
            up = self._up(x_NCHW, [layer])
            peaks = peaks_of(up.maps[layer.index])
        seeds = (
            seed_of(image, specs[unit], unit, peaks)
            for image, units in enumerate(units_by_image)
            for unit in units
        )
        return Ascent(up, tuple(specs.values()), tuple(seeds))

    def profile(self, x_NCHW: Tensor, layers: Sequence[Layer]) -> dict[str, Profile]:
        """The pass up of a batch, and of each of `layers` what the images make of its units, by name.

        Nothing can go down from it, so it costs little more than the pass up. Raises ImageTooSmall.
        """
        with self.computing():
            up = self._up(x_NCHW, layers, way_back=False)
            return {layer.name: profile_of(up.maps[layer.index]) for layer in layers}

    @property
    def controls(self) -> Controls:
        """Makes the controls of what this network has reconstructed."""
        return Controls(self)  # not kept: a network that holds itself would not leave its memory at once

    def project_down(self, ascent: Ascent) -> list[Reconstruction]:
        """The second half of `project`: what is kept goes back to pixels."""
        up, specs = ascent.up, ascent.specs
        results: dict[tuple[int, LayerSpec], list[Reconstruction]] = defaultdict(list)
        with self.computing():
            for result in self.single_activations(self.trunk, ascent.seeds, up):
                results[result.image, result.spec].append(result)
            maps = {spec.layer.index: up.maps[spec.layer.index] for spec in specs if spec.is_whole_map}
            pixels = project_maps(self.trunk, maps, up, self.budget.band_elements) if maps else {}
        for spec in (spec for spec in specs if spec.is_whole_map):
            for image, pixels_CHW in enumerate(_at_hand(pixels[spec.layer.index])):
                results[image, spec].append(self._whole_map(image, spec, up, pixels_CHW))
        return [result for image in range(up.n_images) for spec in specs for result in results[image, spec]]

    def single_activations(self, trunk: Trunk, seeds: Sequence[Seed], up: Forward) -> list[Reconstruction]:
        """Each seed through the switches of `up`, on its receptive field; in the order of `seeds`.

        `trunk` holds the kernels that lead down: this network's, or others of its shape for a control.
        """
        layers = layers_of(trunk.model)
        found: dict[int, Reconstruction] = {}
        patches = project_windows(trunk, seeds, up, self.budget.window_elements)
        for patch, pixels_NCHW in self._brought(patches):
            nonfinite_N = pixels_NCHW.isfinite().logical_not_().sum((1, 2, 3)).tolist()
            for row, index in enumerate(patch.seeds):
                seed = seeds[index]
                window = receptive_window(layers[: seed.spec.layer.index + 1], seed.y, seed.x, up.sizes[0])
                pixels_CHW = _laid_into(window, patch.boxes[row], pixels_NCHW[row])
                found[index] = Reconstruction(
                    seed.image,
                    seed.spec,
                    seed.unit,
                    seed.y,
                    seed.x,
                    seed.activation,
                    window,
                    pixels_CHW,
                    nonfinite_N[row],
                    self.normalisation.pixel_std_C,
                )
        return [found[index] for index in range(len(seeds))]

    def _whole_map(self, image: int, spec: LayerSpec, up: Forward, pixels_CHW: Tensor) -> Reconstruction:
        return Reconstruction(
            image=image,
            spec=spec,
            unit=None,
            y=None,
            x=None,
            activation=None,
            window=whole(up.sizes[0]).window(),
            pixels_CHW=pixels_CHW.contiguous(),
            nonfinite=int(pixels_CHW.numel() - pixels_CHW.isfinite().sum()),
            pixel_std_C=self.normalisation.pixel_std_C,
        )

    def _up(self, x_NCHW: Tensor, layers: Sequence[Layer], *, way_back: bool = True) -> Forward:
        size = Size(*x_NCHW.shape[2:])
        if min(size) < MIN_IMAGE_SIZE:
            raise ImageTooSmall(
                f"the image is {size.width} x {size.height} pixels; "
                f"{MIN_IMAGE_SIZE} x {MIN_IMAGE_SIZE} is the least that five pools leave a place of"
            )
        band_elements = self.budget.band_elements
        return forward(self.trunk, self.prepared(x_NCHW), layers, band_elements, way_back=way_back)

    def _brought(self, patches: Iterator[Patch]) -> Iterable[tuple[Patch, Tensor]]:
        """Each patch with its pixels at hand: float32, on the CPU."""
        if self.device.type != "cuda":
            return ((patch, _at_hand(patch.signal_NCHW)) for patch in patches)
        # All work is queued before the first result is waited for: the device never stands still.
        brought = [(patch, _on_its_way(patch.signal_NCHW)) for patch in patches]
        torch.cuda.synchronize(self.device)
        return brought

    @contextmanager
    def computing(self) -> Iterator[None]:
        """No gradients, and TF32 just where the precision says so (torch allows it to cuDNN by default)."""
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=self.precision == "tf32"),
        ):
            yield

    def prepared(self, x_NCHW: Tensor) -> Tensor:
        """Network input, x_NCHW, on the device, in the trunk's data type, channels last in memory."""
        x_NCHW = x_NCHW.to(self.device, self.trunk.dtype)
        return x_NCHW.contiguous(memory_format=torch.channels_last)


def _at_hand(pixels_NCHW: Tensor) -> Tensor:
    """The pixels as they are handed out: float32, on the CPU. One copy for all of a batch."""
    return pixels_NCHW.to("cpu", torch.float32)


def _on_its_way(pixels_NCHW: Tensor) -> Tensor:
    """The same from a GPU, into pinned memory; there once the device is synchronised."""
    host_NCHW = torch.empty_like(pixels_NCHW, dtype=torch.float32, device="cpu", pin_memory=True)
    return host_NCHW.copy_(pixels_NCHW, non_blocking=True)


def _laid_into(window: Window, box: Box, pixels_CHW: Tensor) -> Tensor:
    """The receptive field with the signal in it: a pool's maximum reaches less than its whole pool."""
    out_CHW = pixels_CHW.new_zeros(3, window.bottom - window.top, window.right - window.left)
    rows = slice(box.top - window.top, box.bottom - window.top)
    columns = slice(box.left - window.left, box.right - window.left)
    out_CHW[:, rows, columns] = pixels_CHW
    return out_CHW


def _dtype(precision: Precision, device: torch.device) -> torch.dtype:
    if precision not in ("fp32", "tf32", "bf16"):
        raise DeviceError(f"precision {precision!r} is unknown: choose fp32, tf32 or bf16")
    if precision == "tf32" and device.type != "cuda":
        raise DeviceError(f"precision tf32 needs an NVIDIA GPU, and this is {device}: use fp32")
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError(
            "device cuda is asked for, but torch sees no GPU here: set DECONVOY_DEVICE=cpu or auto"
        )
    return torch.device(name)
