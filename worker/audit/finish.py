"""The end of an audit: its tables, from the records of both passes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from worker.audit.comparison import Comparison, compare, open_baseline
from worker.audit.drift import comparison_findings
from worker.audit.findings import atlas_findings, findings_table, image_findings, unit_findings
from worker.audit.images import Images, gather_images
from worker.audit.reading import atlas_records, read_table
from worker.contract import keys, records
from worker.contract.audit_tables import ATLAS_SCHEMA, UNITS_SCHEMA
from worker.contract.audits import Finding
from worker.contract.jobs import Job
from worker.contract.work import Work
from worker.storage import Store


def finish_audit(store: Store, job: Job) -> records.JobSummary:
    """Write all tables, `failures.jsonl` and, last of all, `summary.json`; its counts are of images.

    The same records always give the same bytes, but for what `summary.json` says of the work. Raises JobError
    if a record is missing, if they have different weights, or if the baseline cannot be compared with.
    """
    work = Work(job.id, store.place)
    statistics = read_table(store, keys.STATISTICS, UNITS_SCHEMA)
    images = gather_images(store, job, statistics, work)
    atlas = _join_atlas(store, job, work)
    baseline = open_baseline(job, work.weights)
    comparison = None if baseline is None else compare(baseline, statistics, images.table)
    units = _with_comparison(_with_controls(statistics, atlas), comparison)
    findings = findings_table(_findings(images, units, atlas, comparison))
    weights = {records.WEIGHTS_METADATA: work.weights}
    for key, table in (
        (keys.ATLAS, atlas),
        (keys.UNITS, units),
        (keys.IMAGES, images.table),
        (keys.FINDINGS, findings),
    ):
        store.write(key, records.to_parquet(table, weights))
    failed = images.table.filter(pc.not_equal(images.table["status"], "ok"))
    store.write(keys.FAILURES, records.failure_lines(failed))
    summary = work.summary(len(images.table), len(failed))
    store.write(keys.SUMMARY, records.summary_json(summary))
    return summary


def _join_atlas(store: Store, job: Job, work: Work) -> pa.Table:
    """All winners: by layer, in the order of the network, then unit, then rank."""
    tables = []
    for record in atlas_records(store, job):
        work.add(record.schema.metadata)
        order = pc.sort_indices(record, [("unit", "ascending"), ("rank", "ascending")])
        tables.append(record.take(order).replace_schema_metadata(None))
    return pa.concat_tables(tables, promote_options="none").cast(ATLAS_SCHEMA)


def _findings(
    images: Images, units: pa.Table, atlas: pa.Table, comparison: Comparison | None
) -> Iterator[Finding]:
    yield from image_findings(images)
    yield from atlas_findings(atlas)
    if comparison is None:
        yield from unit_findings(units)
    else:
        yield from comparison_findings(units, comparison)


def _with_controls(units: pa.Table, atlas: pa.Table) -> pa.Table:
    """Fill `specificity` and `training_effect`: null for a unit without a winner that was drawn."""
    columns = ["layer", "unit", "other_unit_similarity", "random_weights_similarity"]
    drawn: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for row in atlas.filter(pc.equal(atlas["status"], "ok")).select(columns).to_pylist():
        both = row["other_unit_similarity"], row["random_weights_similarity"]
        drawn.setdefault((row["layer"], row["unit"]), []).append(both)
    names = zip(units["layer"].to_pylist(), units["unit"].to_pylist(), strict=True)
    similarities = [drawn.get(name, []) for name in names]
    for place, column in enumerate(("specificity", "training_effect")):
        values = [
            1 - _mean([both[place] for both in winners]) if winners else None for winners in similarities
        ]
        units = _filled(units, column, pa.array(values, pa.float64()))
    return units


def _with_comparison(units: pa.Table, comparison: Comparison | None) -> pa.Table:
    """Fill `psi`, `ks` and `top_turnover`: null without a baseline."""
    if comparison is None:
        return units
    units = _filled(units, "top_turnover", pa.array(comparison.turnover, pa.float64()))
    for column, values in (("psi", comparison.psi_C), ("ks", comparison.ks_C)):
        if values is not None:
            units = _filled(units, column, pa.array(values, pa.float64()))
    return units


def _filled(units: pa.Table, column: str, values: pa.Array) -> pa.Table:
    place = units.schema.get_field_index(column)
    return units.set_column(place, units.schema.field(place), values)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
