"""Taking away audits that a schedule is not to keep."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from producer.jobs import JobHandle
from worker.contract import keys
from worker.contract.jobs import Job

_N_THREADS = 16


def prune(audits: Iterable[JobHandle], in_use_by: Job) -> None:
    """Delete all of each audit, but for the one that `in_use_by` is compared with. Raises StorageError."""
    baseline = in_use_by.audit.baseline if in_use_by.audit is not None else None
    for handle in audits:
        if handle.place != baseline:
            _delete(handle)


def _delete(handle: JobHandle) -> None:
    """Job file and page go last: while they stand, a deletion that broke off is made up for."""
    last = (keys.JOB, keys.REPORT)
    with ThreadPoolExecutor(_N_THREADS) as pool:
        # Results are awaited, so that an error is raised.
        list(pool.map(handle.store.delete, (key for key in handle.store.list("") if key not in last)))
    for key in last:
        handle.store.delete(key)
