"""From a place, as users write it, to its store."""

from __future__ import annotations

import os
from pathlib import Path

from worker.contract.errors import UsageError
from worker.storage.base import Store
from worker.storage.folder import FolderStore


def open_store(place: str | os.PathLike[str]) -> Store:
    """The store at `place`: a folder, relative or absolute, `~` allowed; it need not exist yet.

    Raises UsageError for an empty place, and for an URI: buckets are not supported yet.
    """
    text = os.fspath(place)
    if not text:
        raise UsageError("the place is empty: name a folder")
    scheme, separator, _ = text.partition("://")
    if scheme.lower() == "s3" and separator:
        raise UsageError(f"{text}: S3 is not supported by this version; use a folder")
    if separator:
        raise UsageError(f"{text}: {scheme}:// is no kind of place; use a folder")
    # os.path and not pathlib: it leaves an unknown ~user alone, and takes ".." away without following links.
    return FolderStore(Path(os.path.abspath(os.path.expanduser(text))))  # noqa: PTH100, PTH111
