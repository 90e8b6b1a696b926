"""Which images may be read and where jobs may stand: folders and buckets, and of these what is allowed.

Of images it is asked twice: by the producer before a job is written, and by the worker before it opens
anything, which trusts no manifest. Of a job's place the worker asks, which trusts no message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from worker.contract import keys
from worker.contract.errors import ImageNotAllowed, JobError

_S3 = "s3://"
BUCKET = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}"
"""What a bucket may be called, as a regular expression; `.` and `..` would be folders."""

_S3_OBJECT = re.compile(rf"s3://{BUCKET}/.+", re.DOTALL)


class Scheme(NamedTuple):
    """A kind of place that is no folder: how one is written, for messages, and what every one matches."""

    example: str
    place: re.Pattern[str]


SCHEMES: Final[Mapping[str, Scheme]] = {
    "s3": Scheme("s3://bucket/prefix", re.compile(rf"s3://{BUCKET}(/.*)?", re.DOTALL)),
}
"""By what stands before `://`; `worker/storage/factory.py` opens them."""

KINDS_OF_PLACES: Final = " or ".join(scheme.example for scheme in SCHEMES.values())


def parse_roots(roots: str | Sequence[str]) -> tuple[str, ...]:
    """The folders and places of `SCHEMES` of a text with commas, or of a sequence; none for an empty one.

    Raises ValueError for one that is neither an absolute folder nor such a place.
    """
    if isinstance(roots, str):
        roots = [root.strip() for root in roots.split(",")] if roots else []
    for root in roots:
        scheme, separator, _ = root.partition("://")
        known = SCHEMES.get(scheme)
        usable = known and known.place.fullmatch(root) and not _climbs(root)
        if not (usable if separator else root.startswith("/")):
            raise ValueError(f"{root!r} is neither an absolute folder nor {KINDS_OF_PLACES}")
    return tuple(roots)


def check_image(image: str, roots: Sequence[str]) -> None:
    """Refuse what is neither a file nor an object in a bucket; with `roots`, also what lies under none.

    A file lies where its path leads, symbolic links followed; an object under a prefix if the whole parts
    of its URI begin with those of the prefix. Nothing is opened. Raises ImageNotAllowed.
    """
    is_object = image.startswith(_S3)
    if "://" in (image.removeprefix(_S3) if is_object else image):
        raise ImageNotAllowed(f"{image!r} is neither a file nor s3://bucket/key; nothing else is read")
    if is_object:
        if not _S3_OBJECT.fullmatch(image):
            raise ImageNotAllowed(f"{image!r} names no object: write s3://bucket/key")
        if _climbs(image):
            raise ImageNotAllowed(f"{image!r} has a part '..'; name the object itself")
    if roots and not _lies_under(image, roots):
        raise ImageNotAllowed(
            f"{image!r} does not lie under an allowed root; "
            f"add its folder or prefix to DECONVOY_ALLOWED_ROOTS if it may be read"
        )


def check_place(place: str, allowed: Sequence[str]) -> None:
    """Refuse a job's place, as a store names it, that neither is one of `allowed` nor lies under one.

    None allowed: any place will do. Nothing is opened. Raises JobError.
    """
    if allowed and (_climbs(place) or not _lies_under(f"{place}/{keys.JOB}", allowed)):
        raise JobError(
            f"no job may stand at {place!r}; add its folder or prefix to DECONVOY_ALLOWED_PLACES if it may"
        )


def _lies_under(name: str, roots: Sequence[str]) -> bool:
    if "://" in name:
        return any(name.startswith(f"{root.rstrip('/')}/") for root in roots if "://" in root)
    return _leads_into(name, [root for root in roots if "://" not in root])


def _climbs(uri: str) -> bool:
    return ".." in uri.split("/")


def _leads_into(path: str, folders: Sequence[str]) -> bool:
    try:
        real = os.path.realpath(path)
    except ValueError:
        # A null byte: no file has such a name.
        return False
    return any(real.startswith(f"{os.path.realpath(folder).rstrip('/')}/") for folder in folders)
