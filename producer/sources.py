"""From what a user names to the images of a job: files, folders, manifests, standard input.

Nothing is opened but folders and manifests: an image that cannot be read is a failed row of the job.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from worker.contract import keys
from worker.contract.errors import SourceError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
"""What a folder's files must be called to be taken; a file that is named itself may be called anything."""

COLUMN = "image"
"""The column, or key, of a manifest that holds the paths."""

STDIN = "-"


def find_images(sources: Iterable[str], stdin: Iterable[str] | None = None) -> Iterator[str]:
    """The absolute paths of all images of `sources`, in order; one that is named twice comes once.

    Folders are walked in sorted order, without hidden files and without the folders of earlier jobs.
    Lines of a manifest are relative to its folder, lines of `stdin` (default: the process's own) to
    the working directory. Raises SourceError, which names the source, for one that is missing or empty.
    """
    seen: set[str] = set()
    for source in sources:
        n_images = 0
        for image in _images_of(source, stdin):
            n_images += 1
            if image not in seen:
                seen.add(image)
                yield image
        if not n_images:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            raise SourceError(f"source {source!r} holds no image (a folder's are {suffixes})")


def _images_of(source: str, stdin: Iterable[str] | None) -> Iterator[str]:
    if source == STDIN:
        lines = (line.rstrip("\r\n") for line in (sys.stdin if stdin is None else stdin))
        return _absolute(lines, Path.cwd(), "standard input")
    path = Path(source).expanduser().absolute()
    if path.is_dir():
        return (_checked(str(image), source) for image in _walk(path))
    if not path.exists():
        raise SourceError(f"source {source!r} does not exist: name a file, a folder, a manifest or -")
    reader = _MANIFEST_READERS.get(path.suffix.lower())
    if reader is not None:
        return _absolute(reader(path), path.parent, source)
    return iter([_checked(str(path), source)])


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise SourceError(f"folder {str(error.filename)!r} cannot be read: {error.strerror}") from error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not _is_job(here / name))
        for name in sorted(files):
            path = here / name
            if path.suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield path


def _is_job(folder: Path) -> bool:
    """Whether an earlier job stands here: its pictures are results, not photographs."""
    return (folder / keys.JOB).is_file() and (folder / "manifest").is_dir()


def _absolute(entries: Iterable[str], base: Path, source: str) -> Iterator[str]:
    try:
        for entry in entries:
            if not entry.strip():
                continue
            if "://" in entry:
                raise SourceError(f"source {source!r} names {entry!r}: only files can be read")
            yield _checked(str(base / entry), source)
    except OSError as error:
        raise SourceError(f"source {source!r} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"source {source!r} is not UTF-8 text: {error.reason}") from error


def _checked(image: str, source: str) -> str:
    try:
        image.encode()
    except UnicodeEncodeError as error:
        raise SourceError(
            f"source {source!r} holds {image!r}, a name that is not UTF-8: rename the file"
        ) from error
    return image


def _read_txt(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            yield line.rstrip("\r\n")


def _read_csv(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if COLUMN not in (reader.fieldnames or ()):
            raise SourceError(f"manifest {str(path)!r} has no column {COLUMN!r} in its first line")
        try:
            for row in reader:
                yield row[COLUMN] or ""
        except csv.Error as error:
            raise SourceError(f"manifest {str(path)!r} line {reader.line_num}: {error}") from error


def _read_jsonl(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                image = json.loads(line)[COLUMN]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise SourceError(
                    f'manifest {str(path)!r} line {number} is no JSON object with a key "{COLUMN}"'
                ) from error
            if not isinstance(image, str):
                raise SourceError(f'manifest {str(path)!r} line {number}: "{COLUMN}" is no text')
            yield image


def _read_parquet(path: Path) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if COLUMN not in file.schema_arrow.names:
                raise SourceError(f"manifest {str(path)!r} has no column {COLUMN!r}")
            for batch in file.iter_batches(columns=[COLUMN]):
                for image in batch.column(0).cast(pa.string()).to_pylist():
                    yield image or ""
    except pa.ArrowException as error:
        raise SourceError(f"manifest {str(path)!r} is no readable Parquet file: {error}") from error


_MANIFEST_READERS: dict[str, Callable[[Path], Iterator[str]]] = {
    ".txt": _read_txt,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
