"""What a comparison finds: units whose peaks are distributed differently, dead and revived ones, and images.

Two audits of samples of one distribution have none of these but the counts of images: of each kind, the
probability of one false finding in the whole audit is at most `ALPHA`, divided among all its units
(Bonferroni), if images are independent of each other. Source: O. Dunn, *Multiple comparisons among means*
(1961), doi 10.1080/01621459.1961.10482090; for the tests themselves see `worker.audit.histogram`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from worker.audit.comparison import Comparison
from worker.audit.findings import by_layer, counted, named
from worker.audit.histogram import kolmogorov_smirnov_limit
from worker.contract.audits import Finding

_Row: TypeAlias = dict[str, Any]

ALPHA = 0.01
"""The probability of a false finding of one kind in an audit, whatever the number of units."""

DRIFT_PSI = 0.25
"""Population stability index above which, by the usual rule, a distribution has shifted. It is asked for
beside the test, which among very many images finds differences that mean nothing."""

GRAVE_PSI = 1.0
"""Above, a drift is an error."""


def comparison_findings(units: pa.Table, comparison: Comparison) -> Iterator[Finding]:
    """All findings of a comparison. `units` are the audit's own, with all their columns."""
    if comparison.added:
        yield counted("image-added", comparison.added, "images that the baseline has not")
    if comparison.removed:
        yield counted("image-removed", comparison.removed, "images that only the baseline has")
    yield from named("image-changed", comparison.changed, "its bytes are others than in the baseline")
    rows, before = units.to_pylist(), comparison.units.to_pylist()
    if rows[0]["n_images"] and before[0]["n_images"]:
        alpha = ALPHA / len(units)
        pairs = list(zip(before, rows, strict=True))
        yield from by_layer(_drifts(pairs, alpha))
        yield from by_layer(_newly_dead(pairs, alpha))
        yield from by_layer(_revived(pairs, alpha))
        yield from by_layer(_turnovers(rows, comparison, alpha))


def _drifts(pairs: Sequence[tuple[_Row, _Row]], alpha: float) -> Iterator[Finding]:
    """Units whose two distributions differ by the Kolmogorov-Smirnov test and by the stability index."""
    limit = kolmogorov_smirnov_limit(pairs[0][0]["n_images"], pairs[0][1]["n_images"], alpha)
    for before, now in pairs:
        if now["ks"] > limit and now["psi"] > DRIFT_PSI:
            why = (
                f"its peaks are distributed otherwise: stability index {now['psi']:.2f}, above {DRIFT_PSI}; "
                f"Kolmogorov-Smirnov {now['ks']:.2f}, above {limit:.2f}; mean {before['mean']:.4g} before, "
                f"{now['mean']:.4g} now"
            )
            yield Finding(
                "drift", "error" if now["psi"] > GRAVE_PSI else "warning", _name(now), now["psi"], why
            )


def _newly_dead(pairs: Sequence[tuple[_Row, _Row]], alpha: float) -> Iterator[Finding]:
    for before, now in pairs:
        if now["state"] == "dead" and _by_chance(before, now) <= alpha:
            why = f"no image makes it fire; {before['firing_images']} of {before['n_images']} did before"
            yield Finding("newly-dead", "warning", _name(now), before["firing_rate"], why)


def _revived(pairs: Sequence[tuple[_Row, _Row]], alpha: float) -> Iterator[Finding]:
    for before, now in pairs:
        if before["state"] == "dead" and _by_chance(now, before) <= alpha:
            why = f"{now['firing_images']} of {now['n_images']} images make it fire; none did before"
            yield Finding("revived", "warning", _name(now), now["firing_rate"], why)


def _by_chance(firing: _Row, silent: _Row) -> float:
    """The probability, at most, that all images of both audits that make a unit fire are in the first one,
    had they been dealt out at random. So a unit that hardly ever fires is no finding when it does not.
    """
    share: float = firing["n_images"] / (firing["n_images"] + silent["n_images"])
    return float(share ** firing["firing_images"])


def _turnovers(rows: Sequence[_Row], comparison: Comparison, alpha: float) -> Iterator[Finding]:
    """Units with more other top images than the images that came and went explain: each place of the top is
    as likely as any to go to a new image, so their number is binomial. All images new: it says nothing.
    """
    for row, n_others, n_top in zip(rows, comparison.n_others, comparison.n_top, strict=True):
        if n_others and _at_least(n_others, n_top, comparison.replaced) <= alpha:
            why = f"{n_others} of its {n_top} top images are others, of all images {comparison.replaced:.1%}"
            yield Finding("top-turnover", "info", _name(row), row["top_turnover"], why)


def _at_least(n: int, n_tries: int, probability: float) -> float:
    """The probability of `n` successes or more."""
    return sum(
        math.comb(n_tries, k) * probability**k * (1 - probability) ** (n_tries - k)
        for k in range(n, n_tries + 1)
    )


def _name(row: _Row) -> str:
    return f"{row['layer']}:{row['unit']}"
