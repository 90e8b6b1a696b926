"""What the page of an audit says: plain values, read from the audit's tables. No HTML, no pictures."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from worker.audit.drift import DRIFT_PSI
from worker.audit.reading import read_table
from worker.contract import keys
from worker.contract.audit_tables import ATLAS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, UNITS_SCHEMA
from worker.contract.audits import SEVERITIES, AuditOptions
from worker.contract.errors import UsageError
from worker.contract.jobs import Job
from worker.contract.records import weights_sha256
from worker.storage import Store

MAX_FIRST = 8
"""Findings that stand at the top of the page."""
MAX_FIRST_OF_A_KIND = 3
MAX_IMAGE_FINDINGS = 2000
MAX_FAILED = 1000
MAX_ALIKE = 2000
MAX_OUTLIERS = 200
MAX_CELL_PX = 112
"""The side of a cell of a sprite: that of the layer's window, and no more than this."""

IMAGE_KINDS = frozenset(
    ("decode-fault", "nonfinite", "exact-duplicate", "near-duplicate", "outlier", "image-changed")
)
"""Findings whose subject may be an image; all others are about a unit, a layer or the audit."""

_UNIT_COLUMNS = {
    "firing": "firing_rate",
    "places": "firing_places",
    "mean": "mean",
    "variance": "variance",
    "max": "max",
    "specificity": "specificity",
    "training": "training_effect",
    "psi": "psi",
    "ks": "ks",
    "turnover": "top_turnover",
}


@dataclass(frozen=True)
class Finding:
    """One finding. `link` is the part of this page that shows its subject, None where none does."""

    kind: str
    severity: str
    subject: str
    number: float | None
    why: str
    link: str | None


@dataclass(frozen=True)
class AuditPage:
    """Everything that the template needs; `data` is what the page's script reads, fit for JSON.

    `weights_sha256` is that of the weights that were audited; None where nobody recorded it. `n_listed` of
    the `n_images` are in the page's table of images, `findings` of all `n_findings` in that of findings.
    `n_by_severity` counts all of them, the gravest first.
    """

    job: Job
    options: AuditOptions
    weights_sha256: str | None
    n_images: int
    n_failed: int
    n_units: int
    n_listed: int
    n_findings: int
    n_by_severity: dict[str, int]
    findings: tuple[Finding, ...]
    data: dict[str, Any]

    @property
    def first(self) -> tuple[Finding, ...]:
        """What to look at first: the gravest that do more than inform, and not all of one kind."""
        n_by_kind: Counter[str] = Counter()
        first = []
        for finding in self.findings:
            n_by_kind[finding.kind] += 1
            if finding.severity != "info" and n_by_kind[finding.kind] <= MAX_FIRST_OF_A_KIND:
                first.append(finding)
        return tuple(first[:MAX_FIRST])

    @property
    def units_with_pictures(self) -> list[tuple[str, int]]:
        """Layer and number of each unit that has at least one winner, the deepest layer's first."""
        return [
            (layer["name"], unit)
            for layer in reversed(self.data["layers"])
            for unit, winners in zip(layer["unit"], layer["winners"], strict=True)
            if winners
        ]


def audit_page_of(store: Store, job: Job) -> AuditPage:
    """Read all that the page says. Raises UsageError if the job is no audit, a StorageError, and MessageError
    where a table is none of ours.
    """
    if job.audit is None:
        raise UsageError(f"job {job.id} is no audit; its page is written by write_report")
    units, images, atlas, all_findings = (
        read_table(store, key, schema)
        for key, schema in (
            (keys.UNITS, UNITS_SCHEMA),
            (keys.IMAGES, IMAGES_SCHEMA),
            (keys.ATLAS, ATLAS_SCHEMA),
            (keys.FINDINGS, FINDINGS_SCHEMA),
        )
    )
    kept = _findings_kept(all_findings)
    listed = _images_listed(images, atlas, kept)
    key_by_image = dict(zip(listed["image"].to_pylist(), listed["image_key"].to_pylist(), strict=True))
    unit_names = set(_unit_names(units))
    findings = tuple(_finding(row, key_by_image, unit_names) for row in kept.to_pylist())
    by_severity = Counter(all_findings["severity"].to_pylist())
    index_by_key = {key: index for index, key in enumerate(key_by_image.values())}
    layers = [
        _layer(layer.name, _of_layer(units, layer.name), _of_layer(atlas, layer.name), index_by_key)
        for layer in job.layers
    ]
    return AuditPage(
        job=job,
        options=job.audit,
        weights_sha256=weights_sha256(units.schema.metadata) or job.request.weights.sha256,
        n_images=images.num_rows,
        n_failed=pc.sum(pc.not_equal(images["status"], "ok")).as_py() or 0,
        n_units=units.num_rows,
        n_listed=listed.num_rows,
        n_findings=all_findings.num_rows,
        n_by_severity={name: by_severity[name] for name in reversed(SEVERITIES) if by_severity[name]},
        findings=findings,
        data={
            "top": job.audit.top,
            "baseline": job.audit.baseline is not None,
            "driftPsi": DRIFT_PSI,
            "layers": layers,
            "images": _images(listed),
            "findings": [
                [each.severity, each.kind, each.subject, plain(each.number), each.why, each.link]
                for each in findings
            ],
        },
    )


def plain(value: float | None) -> float | None:
    """Five significant digits; None for what JSON cannot hold."""
    return float(f"{value:.5g}") if value is not None and math.isfinite(value) else None


def _of_layer(table: pa.Table, layer: str) -> pa.Table:
    return table.filter(pc.equal(table["layer"], layer))


def _unit_names(units: pa.Table) -> Iterable[str]:
    for layer, unit in zip(units["layer"].to_pylist(), units["unit"].to_pylist(), strict=True):
        yield f"{layer}:{unit}"


def _findings_kept(findings: pa.Table) -> pa.Table:
    """All about units, layers and the audit; of those about images, which may be many, the first."""
    is_image = pc.is_in(findings["kind"], value_set=pa.array(sorted(IMAGE_KINDS)))
    nth_image = pc.cumulative_sum(pc.cast(is_image, pa.int64()))
    return findings.filter(pc.or_(pc.invert(is_image), pc.less_equal(nth_image, MAX_IMAGE_FINDINGS)))


def _finding(row: dict[str, Any], key_by_image: dict[str, str], unit_names: set[str]) -> Finding:
    subject: str = row["subject"]
    link = None
    if row["kind"] in IMAGE_KINDS and subject in key_by_image:
        link = f"#/image/{key_by_image[subject]}"
    elif subject in unit_names:
        link = f"#/unit/{subject.replace(':', '/')}"
    elif any(name.partition(":")[0] == subject for name in unit_names):
        link = f"#/atlas/{subject}"
    return Finding(row["kind"], row["severity"], subject, row["number"], row["why"], link)


def _images_listed(images: pa.Table, atlas: pa.Table, findings: pa.Table) -> pa.Table:
    """The images that people will look for: winners, subjects of findings, failed, alike, most unusual.

    In the order of the sources, each once.
    """
    in_group = pc.or_(pc.is_valid(images["exact_group"]), pc.is_valid(images["near_group"]))
    subjects = findings.filter(pc.is_in(findings["kind"], value_set=pa.array(sorted(IMAGE_KINDS))))["subject"]
    wanted = pc.or_(
        pc.is_in(images["image_key"], value_set=pc.unique(atlas["image_key"])),
        pc.is_in(images["image"], value_set=pc.unique(subjects)),
    )
    for condition, most in ((pc.not_equal(images["status"], "ok"), MAX_FAILED), (in_group, MAX_ALIKE)):
        nth = pc.cumulative_sum(pc.cast(condition, pa.int64()))
        wanted = pc.or_(wanted, pc.and_(condition, pc.less_equal(nth, most)))
    scores = pc.fill_null(images["outlier_score"], -math.inf)
    most_unusual = pc.array_sort_indices(scores, order="descending")[:MAX_OUTLIERS]
    rows = pa.array(range(images.num_rows), pa.uint64())
    return images.filter(pc.or_(wanted, pc.is_in(rows, value_set=most_unusual)))


def _images(listed: pa.Table) -> dict[str, Any]:
    """Columns of equal length."""
    messages = zip(listed["error"].to_pylist(), listed["message"].to_pylist(), strict=True)
    sizes = zip(listed["source_width"].to_pylist(), listed["source_height"].to_pylist(), strict=True)
    return {
        "name": listed["image"].to_pylist(),
        "key": listed["image_key"].to_pylist(),
        "status": listed["status"].to_pylist(),
        "message": [": ".join(filter(None, pair)) for pair in messages],
        "size": [f"{width} × {height}" if width and height else None for width, height in sizes],
        "outlier": [plain(value) for value in listed["outlier_score"].to_pylist()],
        "strongest": [units or [] for units in listed["strongest_units"].to_pylist()],
        "wins": listed["n_top"].to_pylist(),
        "exact": listed["exact_group"].to_pylist(),
        "near": listed["near_group"].to_pylist(),
    }


def _layer(name: str, units: pa.Table, atlas: pa.Table, index_by_key: dict[str, int]) -> dict[str, Any]:
    """One layer: columns of equal length, a place a unit; `winners` are by rank."""
    winners: dict[int, list[list[Any]]] = defaultdict(list)
    scales: dict[int, float | None] = {}
    window_px = 0
    for row in atlas.sort_by([("unit", "ascending"), ("rank", "ascending")]).to_pylist():
        if row["left"] is not None:
            window_px = max(window_px, row["right"] - row["left"], row["bottom"] - row["top"])
        if row["scale"] is not None:
            scales[row["unit"]] = plain(row["scale"])
        winners[row["unit"]].append(
            [
                row["rank"],
                index_by_key.get(row["image_key"]),
                plain(row["activation"]),
                plain(row["other_unit_similarity"]),
                plain(row["random_weights_similarity"]),
                [row["left"], row["top"], row["right"], row["bottom"]],
                ": ".join(filter(None, (row["error"], row["message"]))) if row["status"] != "ok" else None,
            ]
        )
    numbers = units["unit"].to_pylist()
    edges, counts = units["histogram_edges"].to_pylist(), units["histogram_counts"].to_pylist()
    return {
        "name": name,
        "cell": min(window_px, MAX_CELL_PX) or MAX_CELL_PX,
        "unit": numbers,
        "state": units["state"].to_pylist(),
        **{
            short: [plain(value) for value in units[column].to_pylist()]
            for short, column in _UNIT_COLUMNS.items()
        },
        "scale": [scales.get(number) for number in numbers],
        "histogram": [_histogram(*pair) for pair in zip(edges, counts, strict=True)],
        "winners": [winners[number] for number in numbers],
    }


def _histogram(edges: list[float], counts: list[int]) -> list[list[int | None]]:
    """Pairs of a bin's lower edge, in quarter octaves from 1, and its count; None: not above zero."""
    return [[_quarter_octaves(edge), count] for edge, count in zip(edges, counts, strict=True)]


def _quarter_octaves(edge: float) -> int | None:
    """0 for 1, 1 for 1.25, 4 for 2, -1 for 0.875: the edges of the bins are these and no others."""
    if edge <= 0:
        return None
    mantissa, exponent = math.frexp(edge)
    return 4 * (exponent - 1) + int(8 * mantissa - 4)
