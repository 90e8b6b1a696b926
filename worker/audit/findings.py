"""What is to be looked at, a row each. Every threshold is here or in the module that computes its number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from worker.audit.images import Images
from worker.contract.audit_tables import FINDINGS_SCHEMA
from worker.contract.audits import SEVERITIES, Finding

MAX_NAMED = 20
"""Units of one layer, or changed images, that have a finding each; of more there is one in all."""

UNSPECIFIC = 0.05
"""Specificity below which another unit's kernel draws nearly the same picture."""

_AUDIT = "audit"
_SHOWN = 3


def findings_table(findings: Iterable[Finding]) -> pa.Table:
    """The gravest first; of one severity, the greatest number first, then by kind and subject."""
    rows = sorted(findings, key=_order)
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=FINDINGS_SCHEMA)


def image_findings(images: Images) -> Iterator[Finding]:
    """Faults, copies and outliers; of a group of images, one finding."""
    table = images.table
    for row in table.filter(pc.not_equal(table["status"], "ok")).to_pylist():
        yield Finding("decode-fault", "error", row["image"], None, f"{row['error']}: {row['message']}")
    for number in np.flatnonzero(images.nonfinite_N).tolist():
        n = int(images.nonfinite_N[number])
        why = f"{n} peaks are NaN or infinite: the image is left out of all statistics"
        yield Finding("nonfinite", "error", table["image"][number].as_py(), n, why)
    yield from _group_findings(table, "exact_group", "exact-duplicate", "are one and the same file")
    yield from _group_findings(table, "near_group", "near-duplicate", "are nearly the same picture")
    outliers = table.filter(pc.greater_equal(table["outlier_score"], images.score_limit))
    for row in outliers.to_pylist():
        units = ", ".join(row["strongest_units"])
        why = (
            f"its peaks lie {row['outlier_score']:.1f} standard deviations from the usual (root mean square "
            f"over units), {images.score_limit:.1f} or more are unlike the others; most of all in {units}"
        )
        yield Finding("outlier", "warning", row["image"], row["outlier_score"], why)


def unit_findings(units: pa.Table) -> Iterator[Finding]:
    """What is so of a network itself: units that never fire, and pictures that say nothing of their unit.

    Said once: an audit with a baseline says what has changed instead.
    """
    dead = units.filter(pc.and_(pc.equal(units["state"], "dead"), pc.greater(units["n_images"], 0)))
    yield from by_layer(
        Finding("dead-unit", "info", _name(row), None, f"none of {row['n_images']} images makes it fire")
        for row in dead.to_pylist()
    )
    unspecific = units.filter(pc.less(units["specificity"], UNSPECIFIC))
    yield from by_layer(
        Finding(
            "unspecific-unit",
            "info",
            _name(row),
            row["specificity"],
            f"another unit's kernel draws nearly the same pictures (specificity {row['specificity']:.3f})",
        )
        for row in unspecific.to_pylist()
    )


def atlas_findings(atlas: pa.Table) -> Iterator[Finding]:
    """Winners that could not be drawn, one finding an image, and pictures that are not finite, one a unit."""
    failed = atlas.filter(pc.not_equal(atlas["status"], "ok")).to_pylist()
    for row in {row["image"]: row for row in reversed(failed)}.values():
        why = f"it is among the top images but could not be drawn: {row['error']}: {row['message']}"
        yield Finding("decode-fault", "error", row["image"], None, why)
    n_by_unit: dict[str, int] = {}
    for row in atlas.filter(pc.greater(atlas["nonfinite"], 0)).to_pylist():
        n_by_unit[_name(row)] = n_by_unit.get(_name(row), 0) + row["nonfinite"]
    for unit, n in n_by_unit.items():
        yield Finding("nonfinite", "error", unit, n, f"{n} pixels of its reconstructions are NaN or infinite")


def by_layer(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Findings of one kind about units, in order; those of a layer with more than `MAX_NAMED` become one."""
    layers: dict[str, list[Finding]] = {}
    for finding in findings:
        layers.setdefault(finding.subject.partition(":")[0], []).append(finding)
    for layer, of_layer in layers.items():
        yield from of_layer if len(of_layer) <= MAX_NAMED else [_joined(layer, of_layer)]


def named(kind: str, images: Sequence[str], why: str) -> Iterator[Finding]:
    """A finding for each image, or one for all."""
    if len(images) <= MAX_NAMED:
        yield from (Finding(kind, "info", image, None, why) for image in images)
    else:
        yield counted(kind, images, f"{len(images)} images: {why}")


def counted(kind: str, images: Sequence[str], why: str) -> Finding:
    """One finding for all images."""
    return Finding(kind, "info", _AUDIT, len(images), f"{why}: {listed(images)}")


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many there are besides."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _joined(layer: str, findings: Sequence[Finding]) -> Finding:
    gravest = min(findings, key=_order)
    units = listed([finding.subject for finding in sorted(findings, key=_order)])
    why = f"{len(findings)} units: {units}; of the first: {gravest.why}"
    return Finding(gravest.kind, gravest.severity, layer, len(findings), why)


def _group_findings(table: pa.Table, column: str, kind: str, what: str) -> Iterator[Finding]:
    groups: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for row in table.filter(table[column].is_valid()).select(["image", "image_key", column]).to_pylist():
        names[row["image_key"]] = row["image"]
        groups.setdefault(row[column], []).append(row["image_key"])
    for first, members in groups.items():
        images = [names[key] for key in sorted(members)]
        why = f"{len(images)} images {what}: {listed(images)}"
        yield Finding(kind, "warning", names[first], len(images), why)


def _name(row: dict[str, object]) -> str:
    return f"{row['layer']}:{row['unit']}"


def _order(finding: Finding) -> tuple[int, float, str, str]:
    number = float("-inf") if finding.number is None else finding.number
    return -SEVERITIES.index(finding.severity), -number, finding.kind, finding.subject
