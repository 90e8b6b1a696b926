"""From a place, as users write it, to its store."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from worker.contract.errors import UsageError
from worker.contract.paths import expanded
from worker.contract.roots import KINDS_OF_PLACES
from worker.storage.base import Store, is_key
from worker.storage.folder import FolderStore
from worker.storage.objects import split_uri

_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def open_store(place: str | os.PathLike[str]) -> Store:
    """The store at `place`: a folder, relative or absolute, `~` allowed, or `s3://bucket/prefix`.

    A folder need not exist yet, a bucket must; neither is looked at here.

    Raises UsageError for an empty place, another kind of URI, a bucket or prefix that cannot be, and a place
    with control characters, which would break log lines.
    """
    text = os.fspath(place)
    if not text:
        raise UsageError("the place is empty: name a folder or s3://bucket/prefix")
    if _CONTROL.search(text):
        raise UsageError(f"{text!r} cannot be a place: it holds control characters; choose another name")
    scheme, separator, _ = text.partition("://")
    if separator:
        if scheme not in OPENERS:
            raise UsageError(f"{text!r} is no kind of place; use a folder or {KINDS_OF_PLACES}")
        return OPENERS[scheme](text)
    # os.path and not pathlib: it takes ".." away without following links.
    return FolderStore(Path(os.path.abspath(expanded(text))))  # noqa: PTH100 (see above)


def _open_bucket(uri: str) -> Store:
    bucket, key = split_uri(uri)
    prefix = key.rstrip("/")
    if prefix and not is_key(prefix):
        raise UsageError(f"{uri!r} cannot be a place: use names between single slashes, no ..")
    # With the first bucket: boto3 takes a quarter of a second to import.
    from worker.storage.s3 import S3Store

    return S3Store(bucket, prefix)


OPENERS: Final[Mapping[str, Callable[[str], Store]]] = {
    "s3": _open_bucket,
}
"""By the schemes of `worker.contract.roots`."""
