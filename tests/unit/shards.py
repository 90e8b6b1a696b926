"""Working through a shard in a test, what it leaves, and a store that can be made to misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.unit.standin import StandInEngine
from worker.contract import keys, records
from worker.contract.jobs import Job, Preprocessing
from worker.pipeline import Assignment, Caution, Limits, ShardResult, run_shard
from worker.storage import Store

LIMITS = Limits(max_image_bytes=10_000_000, max_image_pixels=2_000_000)
SMALL = Preprocessing(size_px=32)
FIT = Preprocessing(resize="fit", size_px=96)


def run(
    store: Store,
    job: Job,
    engine: StandInEngine | None = None,
    *,
    shard: int = 0,
    attempt: int = 0,
    caution: Caution | None = None,
    limits: Limits = LIMITS,
    on_image: Callable[[int, int], None] = lambda *_: None,
) -> ShardResult:
    """Work through one shard. However it ends, no thread of it may be left."""
    try:
        assignment = Assignment(shard, attempt, caution)
        return run_shard(store, job, assignment, engine or StandInEngine(), limits, on_image)
    finally:
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith("deconvoy")] == []


def record_of(store: Store, shard: int = 0) -> pa.Table:
    key = keys.shard_key(shard)
    return records.from_parquet(store.read(key), key)


def rows_of(store: Store, shard: int = 0) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = record_of(store, shard).to_pylist()
    return rows


def objects_of(store: Store, prefix: str = "") -> dict[str, bytes]:
    return {key: store.read(key) for key in store.list(prefix)}


class WrappedStore:
    """A real store, with something done before every write."""

    def __init__(self, store: Store, before_write: Callable[[str], None]) -> None:
        self._store = store
        self._before_write = before_write
        self.place = store.place

    def read(self, key: str) -> bytes:
        return self._store.read(key)

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        return self._store.read_range(key, offset, length)

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        self._before_write(key)
        return self._store.write(key, data, if_absent=if_absent)

    def write_file(self, key: str, path: Path) -> None:
        self._before_write(key)
        self._store.write_file(key, path)

    def exists(self, key: str) -> bool:
        return self._store.exists(key)

    def list(self, prefix: str) -> Iterator[str]:
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        self._store.delete(key)

    def folders(self) -> Iterator[str]:
        return self._store.folders()

    def link(self, key: str, expires_s: int) -> str:
        return self._store.link(key, expires_s)
