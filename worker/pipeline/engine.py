"""What the pipeline needs of the mathematics, and no more. `worker.deconv.Deconvnet` is one of these.

Protocols and not imports: without them, nothing of this package would load without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

from worker.contract.specs import LayerSpec


class Window(Protocol):
    """A box in pixels of the preprocessed image, half-open."""

    @property
    def left(self) -> int: ...  # noqa: D102
    @property
    def top(self) -> int: ...  # noqa: D102
    @property
    def right(self) -> int: ...  # noqa: D102
    @property
    def bottom(self) -> int: ...  # noqa: D102


class Reconstruction(Protocol):
    """One activation, or one whole feature map, projected to pixels: see `worker.deconv`."""

    @property
    def image(self) -> int:
        """The image's number within the batch."""
        ...

    @property
    def spec(self) -> LayerSpec: ...  # noqa: D102
    @property
    def unit(self) -> int | None: ...  # noqa: D102
    @property
    def y(self) -> int | None: ...  # noqa: D102
    @property
    def x(self) -> int | None: ...  # noqa: D102
    @property
    def activation(self) -> float | None: ...  # noqa: D102
    @property
    def window(self) -> Window: ...  # noqa: D102
    @property
    def pixels_CHW(self) -> torch.Tensor:
        """float32 on the CPU, RGB, in network-input units; the window alone."""
        ...

    @property
    def nonfinite(self) -> int: ...  # noqa: D102


class Weights(Protocol):
    """Which weights are loaded."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def sha256(self) -> str: ...  # noqa: D102


class Normalisation(Protocol):
    """How pixels become network input."""

    @property
    def pixel_std_C(self) -> tuple[float, float, float]:
        """What a reconstruction's channels are multiplied by to be in 0-255 pixel units."""
        ...


class Engine(Protocol):
    """A network that projects activations back to pixels."""

    @property
    def weights(self) -> Weights: ...  # noqa: D102
    @property
    def normalisation(self) -> Normalisation: ...  # noqa: D102
    @property
    def device(self) -> torch.device: ...  # noqa: D102

    def normalise(self, images_NHWC: torch.Tensor) -> torch.Tensor:
        """From uint8 RGB to float32 NCHW on the device."""
        ...

    def forward(self, x_NCHW: torch.Tensor, specs: Sequence[str | LayerSpec]) -> Any:
        """The pass up of a batch, and what `specs` keep of it: for `project_down` alone."""
        ...

    def project_down(self, ascent: Any) -> Sequence[Reconstruction]:
        """All reconstructions of a batch: by image, then by spec as given, then by unit."""
        ...
