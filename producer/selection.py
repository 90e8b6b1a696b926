"""Which rows of a job are meant, and a stream of them. All is read from the job's store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pyarrow as pa
import pyarrow.compute as pc

from worker.contract import keys
from worker.contract.errors import JobError, UsageError
from worker.contract.jobs import Job
from worker.contract.records import open_parquet
from worker.contract.specs import parse_spec
from worker.storage import Store

_BATCH_ROWS = 4096


@dataclass(frozen=True)
class Selection:
    """Rows of any of `specs`, spelled as in the index, and of any image that one of `globs` matches.

    No globs: every image.
    """

    specs: tuple[str, ...]
    globs: tuple[str, ...] = ()

    def matches(self, image: str) -> bool:
        """Whether the whole path or URI, or the name at its end, is matched by one of the globs.

        As the shell does it, but `*` and `?` match a slash too, and upper and lower case differ.
        """
        name = image.rpartition("/")[2]
        return not self.globs or any(
            fnmatchcase(image, glob) or fnmatchcase(name, glob) for glob in self.globs
        )

    def of(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows that are meant, in their order."""
        meant = pc.is_in(rows["spec"], value_set=pa.array(self.specs, pa.string()))
        if self.globs:
            images = [image for image in rows["image"].unique().to_pylist() if self.matches(image)]
            meant = pc.and_(meant, pc.is_in(rows["image"], value_set=pa.array(images, pa.string())))
        return rows.filter(meant)


def make_selection(job: Job, specs: Sequence[str], globs: Sequence[str]) -> Selection:
    """Read what a user chose; no specs: all of the job. Raises SpecError; UsageError for one it has not."""
    had = tuple(map(str, job.request.parsed_specs()))
    wanted = tuple(str(parse_spec(spec, job.request.model)) for spec in specs)
    for spec in wanted:
        if spec not in had:
            raise UsageError(f"job {job.id} has no {spec}: it has {', '.join(had)}")
    return Selection(wanted or had, tuple(globs))


def selected_rows(
    store: Store, job: Job, selection: Selection, tell: Callable[[str], None]
) -> Iterator[pa.RecordBatch]:
    """The rows that are meant, in the index's order, some thousand at a time and never none.

    Where there is no index yet, those of the shards that are done; `tell` gets a line that says so.
    Raises JobError if no shard is done, UsageError if nothing is meant, MessageError for a bad index.
    """
    found = False
    for batch in _batches(store, job, tell):
        rows = selection.of(batch)
        if rows.num_rows:
            found = True
            yield rows
    if not found:
        wanted = " or ".join(map(repr, selection.globs)) or "anything"
        raise UsageError(
            f"job {job.id} has no image that matches {wanted}: "
            f"it has {job.n_images} images with {', '.join(job.request.specs)}"
        )


def _batches(store: Store, job: Job, tell: Callable[[str], None]) -> Iterator[pa.RecordBatch]:
    files = [keys.INDEX]
    if not store.exists(keys.INDEX):
        files = [*store.list(keys.SHARDS)]
        if not files:
            raise JobError(f"no shard of job {job.id} is done yet: wait for the first")
        tell(f"job {job.id} is unfinished: {len(files)} of its {job.n_shards} shards are done and are taken")
    for key in files:
        yield from _read(store.read(key), key)


def _read(data: bytes, where: str) -> Iterator[pa.RecordBatch]:
    with open_parquet(data, where) as file:
        # No reader threads: they may abort a process that ends soon after.
        yield from file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False)
