"""What a finished audit has found, as rows."""

from __future__ import annotations

from collections.abc import Iterable

from producer.jobs import JobHandle
from worker.contract import keys, records
from worker.contract.audit_tables import FINDINGS_SCHEMA
from worker.contract.audits import SEVERITIES, Finding, Severity
from worker.contract.errors import JobError, UsageError


def read_findings(handle: JobHandle) -> list[Finding]:
    """The findings of an audit, the gravest first. Raises UsageError, JobError, MessageError."""
    if handle.job.audit is None:
        raise UsageError(f"job {handle.id} is no audit: it has no findings")
    if not handle.store.exists(keys.REPORT):
        raise JobError(f"audit {handle.id} is not finished: wait until it is")
    where = f"{keys.FINDINGS} in {handle.place}"
    table = records.from_parquet(handle.store.read(keys.FINDINGS), where, FINDINGS_SCHEMA)
    return [Finding(**row) for row in table.to_pylist()]


def at_least(findings: Iterable[Finding], severity: Severity) -> list[Finding]:
    """The findings that are as grave as that, or graver."""
    least = SEVERITIES.index(severity)
    return [finding for finding in findings if SEVERITIES.index(finding.severity) >= least]
