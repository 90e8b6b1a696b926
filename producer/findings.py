"""What a finished audit has found, as rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from producer.jobs import JobHandle
from worker.contract import keys
from worker.contract.audit_tables import FINDINGS_SCHEMA
from worker.contract.audits import SEVERITIES, Severity
from worker.contract.errors import JobError, MessageError, UsageError, one_line
from worker.contract.records import UNREADABLE


@dataclass(frozen=True)
class Finding:
    """A row of `findings.parquet`; docs/audits.md has every kind."""

    kind: str
    severity: Severity
    subject: str
    number: float | None
    why: str


def read_findings(handle: JobHandle) -> list[Finding]:
    """The findings of an audit, the gravest first. Raises UsageError, JobError, MessageError."""
    if handle.job.audit is None:
        raise UsageError(f"job {handle.id} is no audit: it has no findings")
    if not handle.store.exists(keys.REPORT):
        raise JobError(f"audit {handle.id} is not finished: wait until it is")
    data = handle.store.read(keys.FINDINGS)
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read()
    except UNREADABLE as error:
        raise MessageError(
            f"{keys.FINDINGS} in {handle.place} cannot be read: {one_line(error)}; audit again"
        ) from error
    if not table.schema.equals(FINDINGS_SCHEMA, check_metadata=False):
        raise MessageError(
            f"{keys.FINDINGS} in {handle.place} has other columns than this version's; use the version that "
            "wrote it"
        )
    return [Finding(**row) for row in table.to_pylist()]


def at_least(findings: Iterable[Finding], severity: Severity) -> list[Finding]:
    """The findings that are as grave as that, or graver."""
    least = SEVERITIES.index(severity)
    return [finding for finding in findings if SEVERITIES.index(finding.severity) >= least]
