"""A fetch, what came of it, and a store that notes what is read."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from producer.fetch import Fetch, Summary
from producer.selection import make_selection
from tests.unit.shards import WrappedStore
from worker.contract.jobs import Job
from worker.storage import Store


def fetch(
    store: Store,
    job: Job,
    target: Store,
    specs: tuple[str, ...] = (),
    globs: tuple[str, ...] = (),
    **options: Any,
) -> Summary:
    said: list[str] = []
    try:
        summary = Fetch(job, store, target, **options).run(make_selection(job, specs, globs), said.append)
    finally:
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPool")]
    assert said == []
    return summary


def counts(summary: Summary) -> tuple[int, int, int]:
    return summary.n_fetched, summary.n_kept, len(summary.failures)


class ReadingStore(WrappedStore):
    """A real store that notes what is read of pictures, and may change it on the way."""

    def __init__(self, store: Store, change: Callable[[bytes], bytes] = lambda data: data) -> None:
        super().__init__(store, lambda _: None)
        self._change = change
        self.reads: list[tuple[str, int | None, int | None]] = []

    def read(self, key: str) -> bytes:
        return self._seen(key, None, None, self._store.read(key))

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        return self._seen(key, offset, length, self._store.read_range(key, offset, length))

    def _seen(self, key: str, offset: int | None, length: int | None, data: bytes) -> bytes:
        if not key.startswith(("recon/", "inputs/")):
            return data
        self.reads.append((key, offset, length))
        return self._change(data)
