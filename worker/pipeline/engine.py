"""What the pipeline needs of the mathematics, and no more. `worker.deconv.Deconvnet` is one of these.

Protocols and not imports: without them, nothing of this package would load without torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

from worker.contract.architectures import Layer
from worker.contract.specs import LayerSpec


class Window(Protocol):
    """A box in pixels of the preprocessed image, half-open."""

    @property
    def left(self) -> int: ...
    @property
    def top(self) -> int: ...
    @property
    def right(self) -> int: ...
    @property
    def bottom(self) -> int: ...


class Reconstruction(Protocol):
    """One activation, or one whole feature map, projected to pixels: see `worker.deconv`."""

    @property
    def image(self) -> int:
        """The image's number within the batch."""
        ...

    @property
    def spec(self) -> LayerSpec: ...
    @property
    def unit(self) -> int | None: ...
    @property
    def y(self) -> int | None: ...
    @property
    def x(self) -> int | None: ...
    @property
    def activation(self) -> float | None: ...
    @property
    def window(self) -> Window: ...
    @property
    def pixels_CHW(self) -> torch.Tensor:
        """float32 on the CPU, RGB, in network-input units; the window alone."""
        ...

    @property
    def nonfinite(self) -> int: ...


class Weights(Protocol):
    """Which weights are loaded."""

    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...


class Normalisation(Protocol):
    """How pixels become network input."""

    @property
    def pixel_std_C(self) -> tuple[float, float, float]:
        """What a reconstruction's channels are multiplied by to be in 0-255 pixel units."""
        ...


class Engine(Protocol):
    """A network that projects activations back to pixels."""

    @property
    def weights(self) -> Weights: ...
    @property
    def normalisation(self) -> Normalisation: ...
    @property
    def device(self) -> torch.device: ...

    def normalise(self, images_NHWC: torch.Tensor) -> torch.Tensor:
        """From uint8 RGB to float32 NCHW on the device."""
        ...

    def forward(self, x_NCHW: torch.Tensor, specs: Sequence[str | LayerSpec]) -> Any:
        """The pass up of a batch, and what `specs` keep of it: for `project_down` alone."""
        ...

    def project_down(self, ascent: Any) -> Sequence[Reconstruction]:
        """All reconstructions of a batch: by image, then by spec as given, then by unit."""
        ...


class Profile(Protocol):
    """Of one layer: what each image makes of each unit."""

    @property
    def peak_NC(self) -> torch.Tensor:
        """Each unit's strongest activation: float32, on the CPU."""
        ...

    @property
    def firing_NC(self) -> torch.Tensor:
        """The places of each unit's map that are above zero: int64, on the CPU."""
        ...


class Control(Protocol):
    """A reconstruction beside two that nothing but the kernels tells apart: see `worker.deconv.control`."""

    @property
    def reconstruction(self) -> Reconstruction: ...
    @property
    def other_unit(self) -> Reconstruction: ...
    @property
    def random_weights(self) -> Reconstruction: ...
    @property
    def other_unit_similarity(self) -> float: ...
    @property
    def random_weights_similarity(self) -> float: ...


class Controls(Protocol):
    """Makes controls."""

    def of(self, ascent: Any) -> Sequence[Control]:
        """Those of all single activations that `ascent` keeps, in their order."""
        ...


class UnitAscent(Protocol):
    """The pass up of a batch, and what named units keep of it: by image, then by unit as named."""

    def parts(self, n_seeds: int) -> Iterator[Any]:
        """The same with at most so many activations each, in their order: for `Controls.of`."""
        ...


class AuditEngine(Engine, Protocol):
    """A network that an audit can ask what it makes of images, unit by unit."""

    @property
    def controls(self) -> Controls: ...

    def profile(self, x_NCHW: torch.Tensor, layers: Sequence[Layer]) -> Mapping[str, Profile]:
        """The pass up of a batch, and the profile of each of `layers`, by name."""
        ...

    def forward_units(
        self, x_NCHW: torch.Tensor, layer: Layer, units_by_image: Sequence[Sequence[int]]
    ) -> UnitAscent:
        """The pass up of a batch, and the peaks of each image's own units of `layer`."""
        ...
