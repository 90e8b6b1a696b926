"""From what a user names to the images of a job: files, folders, buckets, manifests, standard input.

Everything streams. Nothing is opened but folders and manifests: an image that cannot be read is a failed
row of the job.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from producer.manifests import Line, is_manifest, read_manifest
from producer.spool import cannot_keep
from worker.contract import keys
from worker.contract.errors import ImageNotAllowed, ObjectNotFound, SourceError
from worker.contract.paths import expanded
from worker.contract.roots import check_image
from worker.storage.objects import is_s3, list_objects, read_object, split_uri

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
"""What is taken of a folder or prefix; a file or object that is named itself may be called anything."""

STDIN = "-"

_NO_LINE = 0
_DIGEST_BYTES = 16
_RESULTS = re.compile(r"/(?=(?:inputs|recon)/)")
"""Behind the name of a folder that may be a job's: where its pictures stand."""


def find_images(
    sources: Iterable[str], allowed_roots: Sequence[str] = (), stdin: Iterable[str] | None = None
) -> Iterator[str]:
    """The absolute paths and `s3://` URIs of all images of `sources`, in order, each of them once.

    Folders and prefixes are walked in sorted order, without hidden files and without the results of
    earlier jobs. Lines of a manifest are relative to its folder or prefix, lines of `stdin` (default: the
    process's own) to the working directory. Of an image that came already 16 bytes are kept.

    Raises SourceError, which names the source and the line, for a source that is missing or empty and for
    an image that `check_image` refuses; StorageError for a bucket that cannot be read.
    """
    seen: set[int] = set()
    for source in sources:
        n_images = 0
        for line, image in _named_by(source, stdin):
            n_images += 1
            digest = _checked_digest(image, allowed_roots, source, line)
            if digest not in seen:
                seen.add(digest)
                yield image
        if not n_images:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            raise SourceError(f"source {source!r} holds no image (a folder's are {suffixes})")


def _checked_digest(image: str, allowed_roots: Sequence[str], source: str, line: int) -> int:
    try:
        check_image(image, allowed_roots)
        # As a number: it takes a quarter less memory than as bytes.
        return int.from_bytes(blake2b(image.encode(), digest_size=_DIGEST_BYTES).digest())
    except ImageNotAllowed as error:
        raise SourceError(f"{_place(source, line)}: {error}") from error
    except UnicodeEncodeError as error:
        raise SourceError(
            f"{_place(source, line)}: {image!r} is a name that is not UTF-8: rename the file"
        ) from error


def _place(source: str, line: int) -> str:
    named = "standard input" if source == STDIN else f"source {source!r}"
    return named if line == _NO_LINE else f"{named} line {line}"


def _named_by(source: str, stdin: Iterable[str] | None) -> Iterator[Line]:
    """The images that one source names, unchecked, each with its line in a manifest."""
    if source == STDIN:
        return _absolute(_lines(sys.stdin if stdin is None else stdin), f"{Path.cwd()}/")
    if is_s3(source):
        return _named_by_uri(source)
    if "://" in source:
        return iter([(_NO_LINE, source)])
    path = expanded(source).absolute()
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceError(
            f"source {source!r} does not exist: name a file, a folder, s3://bucket/prefix, a manifest or -"
        ) from error
    except (OSError, ValueError) as error:
        raise SourceError(f"source {source!r} cannot be read: {error}") from error
    if is_folder:
        return ((_NO_LINE, str(image)) for image in _walk(path))
    if is_manifest(source):
        return _absolute(read_manifest(path, source), f"{path.parent}/")
    return iter([(_NO_LINE, str(path))])


def _named_by_uri(uri: str) -> Iterator[Line]:
    is_prefix = uri.endswith("/") or not split_uri(uri)[1]
    if not is_prefix and is_manifest(uri):
        with _local_copy(uri) as path:
            yield from _absolute(read_manifest(path, uri), f"{uri.rpartition('/')[0]}/")
    # An object's own URI stands before all others that start with it.
    elif not is_prefix and next(list_objects(uri), None) == uri:
        yield _NO_LINE, uri
    else:
        for image in _images_below(uri if uri.endswith("/") else f"{uri}/"):
            yield _NO_LINE, image


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


def _images_below(prefix: str) -> Iterator[str]:
    """The images under a prefix that ends in a slash, from one listing.

    The listing shows a job's `inputs/` before its `job.json`, so each folder that holds `inputs/` or `recon/`
    is asked once whether it is a job's. No other picture of a job is left out.
    """
    jobs: dict[str, bool] = {}

    def is_result(below: str) -> bool:
        for match in _RESULTS.finditer(below):
            folder = below[: match.start()]
            if folder not in jobs:
                jobs[folder] = _is_job_prefix(f"{prefix}{folder}")
            if jobs[folder]:
                return True
        return False

    for uri in list_objects(prefix):
        below = uri.removeprefix(prefix)
        is_hidden = below.startswith(".") or "/." in below
        if PurePosixPath(below).suffix.lower() in IMAGE_SUFFIXES and not is_hidden and not is_result(below):
            yield uri


def _is_job_prefix(folder: str) -> bool:
    job = f"{folder}/{keys.JOB}"
    return (
        next(list_objects(job), None) == job and next(list_objects(f"{folder}/manifest/"), None) is not None
    )


@contextmanager
def _local_copy(uri: str) -> Iterator[Path]:
    """A manifest that stands in a bucket, as a file: it is read line by line, and Parquet from its end."""
    try:
        data = read_object(uri)
    except ObjectNotFound as error:
        raise SourceError(f"source {uri!r} does not exist: there is no such object") from error
    with tempfile.TemporaryDirectory(prefix="deconvoy-") as folder:
        path = Path(folder) / "manifest"
        try:
            path.write_bytes(data)
        except OSError as error:
            raise cannot_keep(f"manifest {uri!r}", error) from error
        del data
        yield path


def _lines(stdin: Iterable[str]) -> Iterator[Line]:
    try:
        for number, line in enumerate(stdin, start=1):
            yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise SourceError(f"standard input is not UTF-8 text: {error.reason}") from error


def _absolute(lines: Iterable[Line], base: str) -> Iterator[Line]:
    """The lines that are not blank; what is relative is put behind `base`, which ends in a slash."""
    for number, entry in lines:
        if not entry or entry.isspace():
            continue
        if "://" in entry:
            yield number, entry
            continue
        if "//" in entry or "./" in entry or entry.endswith(("/", ".")):
            # One spelling for a file, so that it comes once. A ".." stays: it may lead through a link.
            entry = str(PurePosixPath(entry))
        yield number, entry if entry.startswith("/") else base + entry
