"""What a scan says of each unit of a layer. Images may be added in any order and in any portions: the
result is the same to the last bit. What each number is: docs/audits.md, "`units.parquet`".
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from worker.audit.exact import ExactSums
from worker.audit.histogram import Histograms, lower_edges
from worker.audit.reading import Profiles
from worker.audit.top_images import TopImages
from worker.contract.architectures import Layer
from worker.contract.audit_tables import UNITS_SCHEMA

_NOT_KNOWN_YET = ("specificity", "training_effect", "psi", "ks", "top_turnover")


class LayerStatistics:
    """Of each unit of one layer: all columns of `UNITS_SCHEMA` that the scan alone decides."""

    def __init__(self, layer: Layer, top: int) -> None:
        self.layer = layer
        self.top_images = TopImages(layer.channels, top)
        self._n_images = 0
        self._n_places = 0
        self._sums = ExactSums(layer.channels)
        self._histograms = Histograms(layer.channels)
        self._firing_images_C = np.zeros(layer.channels, np.int64)
        self._firing_places_C = np.zeros(layer.channels, np.int64)
        self._max_C = np.full(layer.channels, -np.inf, np.float32)

    def add(self, keys_N: npt.NDArray[np.str_], profiles: Profiles) -> None:
        """Count images in, one or more, whose peaks are finite."""
        self._n_images += len(keys_N)
        self._n_places += int(profiles.places_N.sum())
        self._sums.add(profiles.peaks_NC)
        self._histograms.add(profiles.peaks_NC)
        self._firing_images_C += (profiles.peaks_NC > 0).sum(axis=0)
        self._firing_places_C += profiles.firing_NC.sum(axis=0, dtype=np.int64)
        np.maximum(self._max_C, profiles.peaks_NC.max(axis=0), out=self._max_C)
        self.top_images.add(keys_N, profiles.peaks_NC)

    def table(self) -> pa.Table:
        """A row a unit. Without any image all numbers are 0, and all units dead."""
        n_units = self.layer.channels
        mean_C, variance_C = self._sums.moments(self._n_images)
        filled = [np.flatnonzero(counts_B) for counts_B in self._histograms.counts_CB]
        winners = [self.top_images.of(unit) for unit in range(n_units)]
        columns = {
            "layer": [self.layer.name] * n_units,
            "unit": range(n_units),
            "n_images": [self._n_images] * n_units,
            "firing_images": self._firing_images_C,
            "firing_rate": self._firing_images_C / max(self._n_images, 1),
            "firing_places": self._firing_places_C / max(self._n_places, 1),
            "mean": mean_C,
            "variance": variance_C,
            # + 0: whether -0 or 0 is the greatest would depend on the order.
            "max": (self._max_C if self._n_images else np.zeros(n_units, np.float32)) + np.float32(0),
            "histogram_edges": [lower_edges(bins).tolist() for bins in filled],
            "histogram_counts": [
                counts_B[bins].tolist()
                for counts_B, bins in zip(self._histograms.counts_CB, filled, strict=True)
            ],
            "top_image_keys": [[key for key, _ in images] for images in winners],
            "top_activations": [[peak for _, peak in images] for images in winners],
            "state": self._states(),
        }
        columns |= {name: pa.nulls(n_units, pa.float64()) for name in _NOT_KNOWN_YET}
        return pa.table(columns, schema=UNITS_SCHEMA)

    def _states(self) -> npt.NDArray[np.str_]:
        always_on_C = self._firing_places_C == self._n_places
        return np.where(self._firing_images_C == 0, "dead", np.where(always_on_C, "always-on", "live"))
