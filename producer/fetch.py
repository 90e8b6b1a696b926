"""Bringing a job's pictures into a folder: those that are meant, verified by their hash.

Whatever the job's layout, each picture becomes a file, named as layout `files` names it.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from producer.carrier import Carrier, Outcome
from producer.pictures import input_names, pictures_of, recon_names, spans
from producer.selection import Selection, selected_rows
from producer.spool import cannot_keep
from worker.contract import keys
from worker.contract.errors import UsageError
from worker.contract.jobs import Job
from worker.contract.records import SCHEMA, WEIGHTS_METADATA
from worker.storage import Store

_TABLE_ROWS = 4096
_TABLES_AHEAD = 2
"""While the last pictures of one table come, threads have those of the next."""


class Failure(NamedTuple):
    """A picture that cannot be had, or is not what the index says; `name` is where it would stand."""

    name: str
    image: str
    message: str


@dataclass
class Summary:
    """What became of the pictures. `n_rows` counts all that was meant, also images that failed."""

    n_rows: int = 0
    n_pictures: int = 0
    n_fetched: int = 0
    n_kept: int = 0
    failures: list[Failure] = field(default_factory=list)

    @property
    def n_done(self) -> int:
        """The pictures of which it is known what became of them."""
        return self.n_fetched + self.n_kept + len(self.failures)

    def count(self, outcome: Outcome) -> None:
        """Add a picture of which it is known now."""
        self.n_fetched += outcome.how == "fetched"
        self.n_kept += outcome.how == "kept"
        if outcome.how == "failed":
            picture = outcome.picture
            self.failures.append(Failure(picture.name, picture.image, outcome.message))


class Fetch:
    """Brings pictures of the job at `source` into the folder `target`, with `inputs` the preprocessed
    images too; `n_threads` at a time.
    """

    def __init__(
        self, job: Job, source: Store, target: Store, *, inputs: bool = False, n_threads: int = 8
    ) -> None:
        self._job = job
        self._source = source
        self._target = target
        self._inputs = inputs
        self._n_threads = n_threads

    def run(
        self,
        selection: Selection,
        tell: Callable[[str], None] = lambda _: None,
        on_progress: Callable[[Summary], None] = lambda _: None,
    ) -> Summary:
        """Bring what is meant; what stands already with the right hash is kept, and not read again.

        At the end the folder's `index.parquet` has the selected rows; what could not be had has no key
        there, and is a failure of the summary. `tell` gets a line if the job is unfinished, and
        `on_progress` the summary as it grows.

        Raises UsageError if nothing is meant or the folder is a job's; StorageUnavailable, StorageFull or
        StorageDenied where to go on is of no use; JobError and MessageError.
        """
        if self._target.exists(keys.JOB):
            raise UsageError(f"{self._target.place} is a job's own place: name another folder")
        batches = selected_rows(self._source, self._job, selection, tell)
        first = next(batches)
        weights = (first.schema.metadata or {}).get(WEIGHTS_METADATA)
        summary = Summary()
        with _temporary_folder() as folder:
            selected, index = folder / "selected.parquet", folder / keys.INDEX
            # All rows are looked at before anything is brought, so that the end is in sight.
            with _writing(selected, SCHEMA) as write:
                for rows in _by_image(chain([first], batches)):
                    summary.n_rows += rows.num_rows
                    summary.n_pictures += len(pictures_of(rows, self._job, inputs=self._inputs))
                    write(rows)
            schema = SCHEMA.with_metadata({WEIGHTS_METADATA: weights} if weights else None)
            with _threads(self._n_threads) as pool, _writing(index, schema) as write:
                for rows, carried in self._carried(pool, _tables(selected)):
                    names = set()
                    for outcome in chain.from_iterable(future.result() for future in carried):
                        summary.count(outcome)
                        on_progress(summary)
                        if outcome.how != "failed":
                            names.add(outcome.picture.name)
                    write(self._moved(rows, names))
            self._target.write_file(keys.INDEX, index)
        return summary

    def _carried(
        self, pool: ThreadPoolExecutor, tables: Iterable[pa.Table]
    ) -> Iterator[tuple[pa.Table, list[Future[list[Outcome]]]]]:
        """Each table of rows, and what will become of its pictures."""
        carrier = Carrier(self._source, self._target)
        ahead: deque[tuple[pa.Table, list[Future[list[Outcome]]]]] = deque()
        for rows in tables:
            groups = spans(pictures_of(rows, self._job, inputs=self._inputs))
            ahead.append((rows, [pool.submit(carrier.carry, group) for group in groups]))
            if len(ahead) == _TABLES_AHEAD:
                yield ahead.popleft()
        yield from ahead

    def _moved(self, rows: pa.Table, names: Collection[str]) -> pa.Table:
        """The rows, with the pictures under `names` where they stand now and no others."""
        nowhere = [None] * rows.num_rows
        inputs = input_names(rows) if self._inputs else nowhere
        columns = {
            "key": [name if name in names else None for name in recon_names(rows, self._job)],
            "input_key": [name if name in names else None for name in inputs],
            **dict.fromkeys(("offset", "length", "input_offset", "input_length"), nowhere),
        }
        for name, values in columns.items():
            field_of = SCHEMA.field(name)
            rows = rows.set_column(
                rows.schema.get_field_index(name), field_of, pa.array(values, field_of.type)
            )
        return rows


def _by_image(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Tables of some thousand rows that do not part an image's; an image's rows follow one another."""
    rows = SCHEMA.empty_table()
    for batch in batches:
        rows = pa.concat_tables([rows, pa.table(batch).replace_schema_metadata(None)])
        if rows.num_rows >= _TABLE_ROWS:
            last_begins = pc.index(rows["image_key"], rows["image_key"][-1]).as_py()
            if last_begins:
                yield rows[:last_begins]
                rows = rows[last_begins:]
    yield rows


def _tables(path: Path) -> Iterator[pa.Table]:
    """The tables that were written to the file, one after the other."""
    with pq.ParquetFile(path) as file:
        for n in range(file.num_row_groups):
            yield file.read_row_group(n, use_threads=False)


@contextmanager
def _writing(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """A new Parquet file; each table that is given becomes a row group. Raises StorageFull."""
    with _translated():
        writer = pq.ParquetWriter(path, schema, compression="zstd")

    def write(rows: pa.Table) -> None:
        with _translated():
            writer.write_table(rows.replace_schema_metadata(schema.metadata))

    try:
        yield write
    finally:
        with _translated():
            writer.close()


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    with _translated():
        folder = tempfile.TemporaryDirectory(prefix="deconvoy-")
    with folder as name:
        yield Path(name)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_keep("the selected rows", error) from error


@contextmanager
def _threads(n_threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool that, when it is left early, does what it has begun and nothing more."""
    pool = ThreadPoolExecutor(n_threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
