"""Steps on the device: batches of images through the network, smaller if the memory does not hold them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from worker.contract.errors import DeconvoyError, ImageTooLarge
from worker.contract.specs import LayerSpec
from worker.pipeline.batches import BatchSizes
from worker.pipeline.engine import Engine, Reconstruction
from worker.pipeline.loading import Failed, Loaded
from worker.pipeline.stages import Stages

if TYPE_CHECKING:
    import torch

# How torch says it on a CPU, and how cuBLAS and cuDNN say it on a GPU: as a plain RuntimeError.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Computed(Generic[_Result]):
    """An image with what a step made of it, and its share of the time."""

    image: Loaded
    result: _Result
    seconds: float


@dataclass(frozen=True)
class Fitting(Generic[_Result]):
    """Does `step`, which gives a result an image, in batches of `sizes` that fit the memory of `device`."""

    step: Callable[[Sequence[Loaded]], Sequence[_Result]]
    device: torch.device
    sizes: BatchSizes

    def compute(self, images: Sequence[Loaded]) -> Iterator[Computed[_Result] | Failed]:
        """Do the step for `images`, all of one size, in parts that `sizes` allows; out of memory halves it.

        An image that does not fit alone has failed; the others go on.
        """
        height, width = images[0].height, images[0].width
        n_done = 0
        while n_done < len(images):
            part = images[n_done : n_done + self.sizes.of(height, width)]
            started = time.perf_counter()
            results = self._try(part)
            if results is None:
                if len(part) == 1:
                    yield self._does_not_fit(part[0])
                    n_done += 1
                else:
                    self.sizes.halve(len(part), height, width)
                continue
            seconds = (time.perf_counter() - started) / len(part)
            for image, result in zip(part, results, strict=True):
                yield Computed(image, result, seconds)
            n_done += len(part)

    def _does_not_fit(self, image: Loaded) -> Failed:
        error = ImageTooLarge(
            f"out of memory on {self.device} with this image alone, {image.width} x {image.height} "
            "pixels; use a smaller --size, or --resize fit instead of native"
        )
        return Failed(image.position, image.entry, error, image.source_sha256)

    def _try(self, images: Sequence[Loaded]) -> Sequence[_Result] | None:
        """The step's results, or None if the memory did not hold them."""
        import torch

        try:
            return self.step(images)
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(
                words in str(error).lower() for words in _OUT_OF_MEMORY
            ):
                raise
        # Only here, outside the handler, is the traceback gone that kept the network's tensors alive.
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None


def network_input(engine: Engine, images: Sequence[Loaded]) -> torch.Tensor:
    """The images as a batch on the device: x_NCHW."""
    import torch

    return engine.normalise(torch.from_numpy(np.stack([image.pixels_HWC for image in images])))


@dataclass(frozen=True)
class Projector:
    """The step of an ordinary job: each image's reconstructions by spec as the job has them, then by unit."""

    engine: Engine
    specs: Sequence[LayerSpec]
    stages: Stages

    def __call__(self, images: Sequence[Loaded]) -> list[list[Reconstruction]]:
        """The reconstructions of each image."""
        return _by_image(self._up_and_down(images), len(images), self.specs)

    def _up_and_down(self, images: Sequence[Loaded]) -> Sequence[Reconstruction]:
        """A function of its own: what the way up has left behind must not outlive it."""
        with self.stages.measure("forward"):
            ascent = self.engine.forward(network_input(self.engine, images), self.specs)
        with self.stages.measure("project"):
            return self.engine.project_down(ascent)


def _by_image(
    reconstructions: Sequence[Reconstruction], n_images: int, specs: Sequence[LayerSpec]
) -> list[list[Reconstruction]]:
    """Cut the engine's list by image, and hold it to its promise of number and order."""
    expected = [(image, spec) for image in range(n_images) for spec in specs for _ in range(spec.n_results)]
    got = [(reconstruction.image, reconstruction.spec) for reconstruction in reconstructions]
    if got != expected:
        raise DeconvoyError(
            f"the network gave {len(got)} reconstructions in another order or number than the "
            f"{len(expected)} asked; this is a fault of the network's code"
        )
    per_image = len(expected) // n_images
    return [list(reconstructions[n * per_image : (n + 1) * per_image]) for n in range(n_images)]
