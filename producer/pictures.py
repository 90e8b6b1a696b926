"""The pictures that rows of an index tell of: their names as files, and how they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from worker.contract import keys
from worker.contract.jobs import Job
from worker.storage import Store

_MAX_GAP_BYTES = 64 * 2**10
_MAX_SPAN_BYTES = 4 * 2**20
"""Over HTTP, a thousand neighbours of 40 kB come in ten requests more than ten times as fast as one by one;
bytes between them that nobody wants may cost money, so that the gap is kept small."""


class Picture(NamedTuple):
    """One picture: where it stands, and the name that it gets. `sha256` is None where none is known.

    It is `length` bytes of the object `key` from `offset` on; all of the object if `length` is None.
    """

    image: str
    name: str
    sha256: str | None
    key: str
    offset: int
    length: int | None

    def read(self, store: Store) -> bytes:
        """Its bytes, alone. Raises StorageError."""
        if self.length is None:
            return store.read(self.key)
        return store.read_range(self.key, self.offset, self.length)


def recon_names(rows: pa.Table, job: Job) -> list[str | None]:
    """For each row the name of its picture in layout `files`, None where there is no picture.

    Every row is of one of the job's specs.
    """
    specs = {str(spec): spec for spec in job.request.parsed_specs()}
    columns = (rows[column].to_pylist() for column in ("key", "spec", "image_key", "unit"))
    return [
        None if key is None else keys.recon_key(specs[spec], image_key, job.request.format, unit)
        for key, spec, image_key, unit in zip(*columns, strict=True)
    ]


def input_names(rows: pa.Table) -> list[str | None]:
    """For each row the name of its preprocessed image in layout `files`, None where there is none."""
    columns = (rows[column].to_pylist() for column in ("input_key", "image_key"))
    return [
        None if key is None else keys.input_key(image_key) for key, image_key in zip(*columns, strict=True)
    ]


def pictures_of(rows: pa.Table, job: Job, *, inputs: bool) -> list[Picture]:
    """The rows' pictures, each once; with `inputs` the preprocessed images too, whose hash is not known."""
    # A row that names no hash does not vouch for its picture: no bytes have the hash "".
    sha256s = [sha256 or "" for sha256 in rows["sha256"].to_pylist()]
    parts = [_pictures(rows, recon_names(rows, job), "", sha256s)]
    if inputs:
        parts.append(_pictures(rows, input_names(rows), "input_", [None] * rows.num_rows))
    return [*{picture.name: picture for part in parts for picture in part}.values()]


def spans(pictures: Iterable[Picture]) -> list[list[Picture]]:
    """The pictures in groups: neighbours within one object, a few MiB together; every other one alone."""
    groups: list[list[Picture]] = []
    for picture in sorted(pictures, key=lambda picture: (picture.key, picture.offset)):
        if groups and _joins(groups[-1], picture):
            groups[-1].append(picture)
        else:
            groups.append([picture])
    return groups


def read_span(store: Store, span: Sequence[Picture]) -> list[bytes]:
    """The bytes of each picture of one of the `spans`, in one request. Raises StorageError."""
    first, last = span[0], span[-1]
    if last.length is None:
        return [picture.read(store) for picture in span]
    data = memoryview(store.read_range(first.key, first.offset, last.offset + last.length - first.offset))
    return [bytes(data[picture.offset - first.offset :][: picture.length]) for picture in span]


def _joins(span: Sequence[Picture], picture: Picture) -> bool:
    first, last = span[0], span[-1]
    if last.length is None or picture.length is None or last.key != picture.key:
        return False
    gap = picture.offset - (last.offset + last.length)
    return 0 <= gap <= _MAX_GAP_BYTES and picture.offset + picture.length - first.offset <= _MAX_SPAN_BYTES


def _pictures(
    rows: pa.Table, names: Sequence[str | None], prefix: str, sha256s: Sequence[str | None]
) -> Iterator[Picture]:
    columns = (rows[f"{prefix}{column}"].to_pylist() for column in ("key", "offset", "length"))
    images = rows["image"].to_pylist()
    for image, name, sha256, key, offset, length in zip(images, names, sha256s, *columns, strict=True):
        if name is not None:
            yield Picture(image, name, sha256, key, offset or 0, length)
