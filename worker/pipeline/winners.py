"""The step of an atlas: named units of images, back to pixels with their controls, and into cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from worker.contract.architectures import Layer
from worker.pipeline.compute import network_input
from worker.pipeline.engine import AuditEngine, Control
from worker.pipeline.loading import Loaded
from worker.pipeline.sprites import Cells, Field
from worker.pipeline.stages import Stages

N_SIGNALS = 3
"""What is projected for a winner: the reconstruction and its two controls."""

MAX_WINDOW_BYTES = 64 * 2**20
"""Windows that come down together, at full size, hold no more memory than this."""

Wanted = Mapping[int, Sequence[tuple[int, int, float]]]
"""By an image's place in the plan, what it has won: unit, rank, activation."""


@dataclass(frozen=True)
class Projected:
    """One winner: what its row says of the projection, and its cells."""

    facts: dict[str, Any]
    cells: Cells


@dataclass(frozen=True)
class WinnerProjector:
    """Each image's wanted units, with their controls, in the order of `wanted`."""

    engine: AuditEngine
    layer: Layer
    field: Field
    wanted: Wanted
    stages: Stages

    def __call__(self, images: Sequence[Loaded]) -> list[list[Projected]]:
        """What each image gives."""
        units = [[unit for unit, _, _ in self.wanted[image.position]] for image in images]
        with self.stages.measure("forward"):
            ascent = self.engine.forward_units(network_input(self.engine, images), self.layer, units)
        n_windows = max(1, MAX_WINDOW_BYTES // (4 * N_SIGNALS * 3 * self.field.side**2))
        with self.stages.measure("project"):
            makes = self.engine.controls
            controls = (control for part in ascent.parts(n_windows) for control in makes.of(part))
            return [
                [self._projected(image, next(controls)) for _ in of_image]
                for image, of_image in zip(images, units, strict=True)
            ]

    def _projected(self, image: Loaded, control: Control) -> Projected:
        result = control.reconstruction
        window, place = result.window, (result.y or 0, result.x or 0)
        signal_cell = partial(self.field.signal_cell, place, window)
        cells = Cells(
            reconstruction_CHW=signal_cell(result.pixels_CHW.numpy()),
            other_unit_CHW=signal_cell(control.other_unit.pixels_CHW.numpy()),
            random_weights_CHW=signal_cell(control.random_weights.pixels_CHW.numpy()),
            patch_HWC=self.field.patch_cell(place, window, image.pixels_HWC),
        )
        facts = {
            "status": "ok",
            "message": image.note,
            "y": result.y,
            "x": result.x,
            "left": window.left,
            "top": window.top,
            "right": window.right,
            "bottom": window.bottom,
            "source_box": image.geometry.source_box(window),
            "other_unit_similarity": control.other_unit_similarity,
            "random_weights_similarity": control.random_weights_similarity,
            "nonfinite": result.nonfinite,
        }
        return Projected(facts, cells)
