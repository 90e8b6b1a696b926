"""How unlike the data set an image is: its profile, the peaks of the deepest layer's units, against all.

Source: C. Leys et al., *Detecting outliers: Do not use standard deviation around the mean, use absolute
deviation around the median* (2013), doi 10.1016/j.jesp.2013.03.013, applied to one score an image.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from worker.contract.architectures import Layer

Floats = npt.NDArray[np.float64]

MIN_IMAGES = 30
"""Of fewer images, nobody can say which is unusual."""

LIMIT_MADS = 10.0
"""Median absolute deviations above the median score from which an image is an outlier. Of scores that are
distributed normally, one in 10 ** 11 lies so far out (6.7 standard deviations)."""

LIMIT_FLOOR = 3.0
"""A score below is none of an outlier, however alike the others are. The mean square of all scores is 1; of
290 pieces of photographs, the greatest was 2.3 with trained weights, and 2.9 with random ones."""

N_STRONGEST = 5
"""Units that are named of an image."""


class Usual:
    """What is usual of a layer's units: mean and standard deviation, from the audit's statistics.

    Units that are the same in all images say nothing and are left out.
    """

    def __init__(self, units: pa.Table, layer: Layer) -> None:
        rows = units.filter(pc.equal(units["layer"], layer.name))
        variance_C = rows["variance"].to_numpy()
        self._layer = layer
        self._varying = np.flatnonzero(variance_C > 0)
        self._mean_V = rows["mean"].to_numpy()[self._varying]
        self._deviation_V = np.sqrt(variance_C[self._varying])

    def standardised(self, peaks_NC: npt.NDArray[np.float32]) -> Floats:
        """How many standard deviations each peak lies above its unit's mean: N, V of the units that vary."""
        result: Floats = (peaks_NC[:, self._varying] - self._mean_V) / self._deviation_V
        return result

    def strongest_units(self, standardised_NV: Floats) -> list[list[str]]:
        """Of each image, the units that lie furthest above their means, as `pool5:17`, the furthest first."""
        order_NV = np.argsort(-standardised_NV, axis=1, kind="stable")[:, :N_STRONGEST]
        above_NV = np.take_along_axis(standardised_NV, order_NV, axis=1) > 0
        return [
            [f"{self._layer.name}:{unit}" for unit in units[above].tolist()]
            for units, above in zip(self._varying[order_NV], above_NV, strict=True)
        ]


def scores(standardised_NV: Floats) -> Floats:
    """Each image's outlier score, score_N: the root of the mean square of its standardised peaks."""
    n_images, n_units = standardised_NV.shape
    # Unit by unit, so that it is added in the same order on every machine.
    total_N = reduce(np.add, np.square(standardised_NV).T, np.zeros(n_images))
    score_N: Floats = np.sqrt(total_N / max(n_units, 1))
    return score_N


def score_limit(scores_N: Floats) -> float:
    """The score from which an image is an outlier among these; infinite among too few."""
    if len(scores_N) < MIN_IMAGES:
        return float("inf")
    median = np.median(scores_N)
    deviation = np.median(np.abs(scores_N - median))
    return max(float(median + LIMIT_MADS * deviation), LIMIT_FLOOR)
