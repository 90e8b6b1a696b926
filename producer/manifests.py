"""Lists of images in files: `.txt` with a path a line; `.csv`, `.jsonl` and `.parquet` with a column `image`.

Read as streams, each entry with its line. What an entry means is not decided here.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from worker.contract.errors import SourceError, one_line

COLUMN = "image"
"""The column, or key, of a manifest that holds the images."""

_BUFFER_BYTES = 2**16
_BATCH_ROWS = 1024

Line = tuple[int, str]
"""An entry as it is written, with the number of its line (of a Parquet file: of its row), from 1."""


def is_manifest(name: str) -> bool:
    """Whether a path or URI is that of a manifest, by its suffix."""
    return _suffix(name) in _READERS


def read_manifest(path: Path, name: str) -> Iterator[Line]:
    """The entries of the manifest at `path`, which the user knows as `name`. Raises SourceError."""
    try:
        yield from _READERS[_suffix(name)](path, name)
    except OSError as error:
        raise SourceError(f"manifest {name!r} cannot be read: {error.strerror or one_line(error)}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"manifest {name!r} is not UTF-8 text: {error.reason}") from error


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _read_txt(path: Path, _name: str) -> Iterator[Line]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            yield number, line.rstrip("\n")


def _read_csv(path: Path, name: str) -> Iterator[Line]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        # Strict: a quote that is never closed would make one name of all that follows.
        rows = csv.reader(file, strict=True)
        try:
            header = next(rows, [])
            if COLUMN not in header:
                raise SourceError(f"manifest {name!r} has no column {COLUMN!r} in its first line")
            column = header.index(COLUMN)
            for row in rows:
                yield rows.line_num, row[column] if column < len(row) else ""
        except csv.Error as error:
            raise SourceError(f"manifest {name!r} line {rows.line_num}: {error}") from error


def _read_jsonl(path: Path, name: str) -> Iterator[Line]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                image = json.loads(line)[COLUMN]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise SourceError(
                    f'manifest {name!r} line {number} is no JSON object with a key "{COLUMN}"'
                ) from error
            if not isinstance(image, str):
                raise SourceError(f'manifest {name!r} line {number}: "{COLUMN}" is no text')
            yield number, image


def _read_parquet(path: Path, name: str) -> Iterator[Line]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        # Read piece by piece, and not a whole column at once: a row group may hold a million rows.
        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            if COLUMN not in file.schema_arrow.names:
                raise SourceError(f"manifest {name!r} has no column {COLUMN!r}")
            # Not with threads: they may abort a process that ends soon after.
            for batch in file.iter_batches(_BATCH_ROWS, columns=[COLUMN], use_threads=False):
                for image in batch.column(0).cast(pa.string()).to_pylist():
                    number += 1
                    yield number, image or ""
    except pa.ArrowException as error:
        raise SourceError(f"manifest {name!r} is no readable Parquet file: {one_line(error)}") from error


_READERS: dict[str, Callable[[Path, str], Iterator[Line]]] = {
    ".txt": _read_txt,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
