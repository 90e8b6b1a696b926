"""The record of a scan as it grows: for each image, what it makes of each unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from worker.contract.architectures import Layer
from worker.contract.audit_tables import profile_schema
from worker.pipeline.loading import Failed, Loaded

Units = Mapping[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]]
"""By layer, an image's peaks and the places that fire, a value a unit."""


class Profiles:
    """Rows by position; they come in any order. What is asked of each image is held once, as numbers."""

    def __init__(self, layers: Sequence[Layer], n_images: int) -> None:
        self._layers = layers
        self._facts: dict[int, dict[str, Any]] = {}
        self._peaks = {layer.name: np.zeros((n_images, layer.channels), np.float32) for layer in layers}
        self._firing = {layer.name: np.zeros((n_images, layer.channels), np.int32) for layer in layers}

    def __len__(self) -> int:
        return len(self._facts)

    def add(self, image: Loaded, units: Units) -> None:
        """The row of an image that has been through the network: `units` holds its peak_C and firing_C."""
        nonfinite = 0
        for name, (peak_C, firing_C) in units.items():
            self._peaks[name][image.position] = peak_C
            self._firing[name][image.position] = firing_C
            nonfinite += int(np.count_nonzero(~np.isfinite(peak_C)))
        self._facts[image.position] = {
            "image": image.entry.image,
            "image_key": image.entry.key,
            "status": "ok",
            "message": image.note,
            "source_sha256": image.source_sha256,
            "width": image.geometry.width,
            "height": image.geometry.height,
            "source_width": image.geometry.source_width,
            "source_height": image.geometry.source_height,
            "difference_hash": image.difference_hash,
            "nonfinite": nonfinite,
        }

    def add_failed(self, failed: Failed) -> None:
        """The row of an image that cannot be used."""
        self._facts[failed.position] = {
            "image": failed.entry.image,
            "image_key": failed.entry.key,
            "status": failed.status,
            "error": type(failed.error).__name__,
            "message": str(failed.error),
            "source_sha256": failed.source_sha256,
        }

    def table(self) -> tuple[list[int], pa.Table]:
        """The positions of all rows, ascending, and the rows, of `profile_schema`."""
        positions = sorted(self._facts)
        facts = [self._facts[position] for position in positions]
        failed_N = np.array([row["status"] != "ok" for row in facts], dtype=bool)
        schema = profile_schema(tuple(self._layers))
        heads = [field for field in schema if field.name in _FACTS]
        columns = [pa.array([row.get(field.name) for row in facts], field.type) for field in heads]
        for layer in self._layers:
            for kind, values in (("peak", self._peaks), ("firing", self._firing)):
                type_ = schema.field(f"{kind}_{layer.name}").type
                values_NC = pa.array(values[layer.name][positions].ravel())
                columns.append(
                    pa.FixedSizeListArray.from_arrays(values_NC, type=type_, mask=pa.array(failed_N))
                )
        return positions, pa.Table.from_arrays(columns, schema=schema)


_FACTS = frozenset(profile_schema(()).names)
