"""Links to a job's page and pictures, which work without any rights of their own for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain

from producer.selection import Selection, selected_rows
from worker.contract import keys
from worker.contract.jobs import Job
from worker.storage import Store

_COLUMNS = ["image", "spec", "unit", "key", "offset", "length"]
_KEPT_LINKS = 1024
"""In layout `tar` many pictures in turn share one object, and to sign its link takes a while."""


def links(
    store: Store, job: Job, selection: Selection, expires_s: int, tell: Callable[[str], None]
) -> Iterator[dict[str, object]]:
    """The page's link as `report`, then a link for each selected picture: `image`, `spec`, `unit`, `url`.

    Where a picture is a part of the object at `url`, `offset` and `length` say which bytes to ask for.
    `tell` gets a line about what has no link. Raises JobError, UsageError, MessageError, StorageError.
    """
    batches = selected_rows(store, job, selection, tell)
    # Before anything is given: there may be nothing to give.
    first = next(batches)

    @lru_cache(_KEPT_LINKS)
    def url_of(key: str) -> str:
        return store.link(key, expires_s)

    if store.exists(keys.REPORT):
        yield {"report": url_of(keys.REPORT)}
    else:
        tell(f"job {job.id} has no page yet")
    n_without = 0
    for batch in chain([first], batches):
        for row in batch.select(_COLUMNS).to_pylist():
            key, offset, length = row.pop("key"), row.pop("offset"), row.pop("length")
            if key is None:
                n_without += 1
                continue
            part = {} if length is None else {"offset": offset, "length": length}
            yield {**row, "url": url_of(key), **part}
    if n_without:
        tell(f"{n_without} rows have no picture: their images failed")
