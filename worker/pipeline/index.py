"""What the records of a job say together: the index, and what the work took.

The index of a million images does not fit a worker's memory: it is put together shard by shard, on disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from worker.contract import keys, records
from worker.contract.errors import JobError, StorageError
from worker.contract.jobs import Job
from worker.contract.work import Work
from worker.storage import Store
from worker.storage.standing import retried_shards, still_to_do

EXCERPT_IMAGES = 500
"""Images whose rows are in an excerpt: so many that are `ok`, and as many that are not."""


@dataclass(frozen=True)
class Excerpt:
    """What a page shows of an index: `table` has the rows of its first images that are `ok`, then of the
    first that are not, with the index's metadata.
    """

    table: pa.Table
    n_images: int
    n_failed: int


def compact(store: Store, job: Job) -> Excerpt:
    """Join all records into `index.parquet`: by manifest order, then spec, then unit.

    Its metadata has the weights, the seconds by stage summed over all records, and the most that any of
    them took of each resource. `failures.jsonl` names the images that are not `ok`, and `summary.json`
    counts all. Raises JobError if a shard is missing, or if shards were computed with different weights.

    A worker that stood still in the middle may have written what an attempt at failed images has outdated
    meanwhile: then it does it again.
    """
    attempts = retried_shards(store)
    excerpt = _compact(store, job, attempts)
    while attempts != (now := retried_shards(store)) and not still_to_do(store, job).shards:
        attempts = now
        excerpt = _compact(store, job, attempts)
    return excerpt


def _compact(store: Store, job: Job, attempts: Mapping[int, Sequence[int]]) -> Excerpt:
    """Write the index of the records that stand. `attempts`: of each shard, those that have a record."""
    todo = still_to_do(store, job)
    if todo.shards:
        raise JobError(
            f"job {job.id}: {len(todo.shards)} of {job.n_shards} shards are not done, the first is "
            f"{todo.shards[0]}; submit the job again to have them done"
        )
    work, good, bad = Work(job.id, store.place), _FirstImages(), _FirstImages()
    n_images = n_failed = 0
    with _temporary(".parquet") as index, _temporary(".jsonl") as failures:
        with (
            pq.ParquetWriter(index, records.SCHEMA, compression="zstd") as writer,
            failures.open("wb") as lines,
        ):
            for shard in range(job.n_shards):
                tables = [*_tables(store, shard, attempts.get(shard, []))]
                rows = _latest(tables).replace_schema_metadata(None)
                writer.write_table(rows)
                for table in tables:
                    work.add(table.schema.metadata)
                good.add(rows.filter(pc.field("status") == "ok"))
                failed = rows.filter(pc.field("status") != "ok")
                bad.add(failed)
                lines.write(records.failure_lines(failed))
                n_images += pc.count_distinct(rows["image_key"]).as_py()
                n_failed += pc.count_distinct(failed["image_key"]).as_py()
            writer.add_key_value_metadata(work.metadata())
        store.write_file(keys.FAILURES, failures)
        store.write_file(keys.INDEX, index)
    summary = work.summary(n_images, n_failed)
    store.write(keys.SUMMARY, records.summary_json(summary))
    table = pa.concat_tables([*good.tables, *bad.tables]).replace_schema_metadata(work.metadata())
    return Excerpt(table, n_images, n_failed)


def failed_images(store: Store, shard: int, before_attempt: int) -> set[str]:
    """The keys of a shard's images that are not `ok`, as the attempts before `before_attempt` left them."""
    attempts = [attempt for attempt in retried_shards(store).get(shard, []) if attempt < before_attempt]
    rows = _latest([*_tables(store, shard, attempts)])
    return set(rows.filter(pc.field("status") != "ok")["image_key"].to_pylist())


class _FirstImages:
    """The rows of the first images that come."""

    def __init__(self) -> None:
        self.tables: list[pa.Table] = []
        self._n_missing = EXCERPT_IMAGES

    def add(self, rows: pa.Table) -> None:
        """Take what is still missing of them."""
        images = pc.unique(rows["image_key"])[: self._n_missing]
        self._n_missing -= len(images)
        self.tables.append(rows.filter(pc.is_in(rows["image_key"], value_set=images)))


@contextmanager
def _temporary(suffix: str) -> Iterator[Path]:
    """A file that is gone at the end. Raises StorageError where there is no disk for it."""
    try:
        file = tempfile.NamedTemporaryFile(prefix="deconvoy-", suffix=suffix)  # noqa: SIM115 (closed below)
    except OSError as error:
        raise StorageError(
            f"cannot make a temporary file, where the index is gathered: {error.strerror}; set TMPDIR to a "
            "folder that this worker can write to"
        ) from error
    with file:
        yield Path(file.name)


def _tables(store: Store, shard: int, attempts: Sequence[int]) -> Iterator[pa.Table]:
    """The records of a shard: the first one, then those of its retries."""
    for key in [keys.shard_key(shard), *(keys.retry_shard_key(attempt, shard) for attempt in attempts)]:
        yield records.from_parquet(store.read(key), key)


def _latest(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows that hold: those of an image's last attempt, images in the order of the first record."""
    rows = tables[0]
    order = {key: number for number, key in enumerate(dict.fromkeys(rows["image_key"].to_pylist()))}
    for later in tables[1:]:
        again = pc.is_in(rows["image_key"], value_set=pc.unique(later["image_key"]))
        rows = pa.concat_tables(
            table.replace_schema_metadata(None) for table in (rows.filter(pc.invert(again)), later)
        )
        places = [order[key] for key in rows["image_key"].to_pylist()]
        rows = rows.take(sorted(range(len(places)), key=places.__getitem__))
    return rows
