"""What is taken out of an audit: all its files that are meant for people and programs, or links to them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from producer.fetch import Failure, Summary
from producer.jobs import JobHandle
from worker.contract import keys
from worker.contract.errors import (
    JobError,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
    UsageError,
)
from worker.storage import Store

_TABLES = (keys.UNITS, keys.IMAGES, keys.ATLAS, keys.FINDINGS)
_NOT_COPIED = (keys.JOB, keys.CANCELLED, keys.SHARDS, keys.RETRIES, "manifest/", "atlas/plan/")
"""What only a job's own place needs."""


def copy_audit(handle: JobHandle, target: Store, n_threads: int) -> Summary:
    """Copy page, pictures and tables of a finished audit into `target`.

    Raises JobError, UsageError if the folder is a job's, and what would meet all other files too:
    StorageUnavailable, StorageFull, StorageDenied.
    """
    _check_finished(handle)
    if target.exists(keys.JOB):
        raise UsageError(f"{target.place} is a job's own place: name another folder")
    wanted = [key for key in handle.store.list("") if not key.startswith(_NOT_COPIED)]
    summary = Summary(n_pictures=len(wanted))

    def copy(key: str) -> Failure | None:
        try:
            target.write(key, handle.store.read(key))
        except (StorageUnavailable, StorageFull, StorageDenied):
            raise
        except StorageError as error:
            return Failure(key, key, str(error))
        return None

    with ThreadPoolExecutor(n_threads) as pool:
        summary.failures += [failure for failure in pool.map(copy, wanted) if failure is not None]
    summary.n_fetched = len(wanted) - len(summary.failures)
    return summary


def audit_links(handle: JobHandle, expires_s: int) -> Iterator[dict[str, object]]:
    """The link of the page that holds its pictures, as `report`, then one for each table. Raises JobError."""
    _check_finished(handle)
    yield {"report": handle.store.link(keys.SINGLE_PAGE, expires_s)}
    for table in _TABLES:
        yield {"table": table, "url": handle.store.link(table, expires_s)}


def _check_finished(handle: JobHandle) -> None:
    if not handle.store.exists(keys.REPORT):
        raise JobError(f"audit {handle.id} is not finished: wait until it is")
