"""Objects in a bucket that are named by their URI: images and manifests, under any key that S3 allows.

What a job itself writes goes through a `Store`. boto3 is imported with the first request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from worker.contract.errors import UsageError
from worker.contract.roots import BUCKET

_SCHEME = "s3://"
_BUCKET = re.compile(BUCKET)


def is_s3(uri: str) -> bool:
    """Whether `uri` names something in a bucket; whether it does so well, `split_uri` says."""
    return uri.startswith(_SCHEME)


def split_uri(uri: str) -> tuple[str, str]:
    """The bucket and the key of `s3://bucket/key`. The key is taken as it stands and may be empty.

    Raises UsageError for an URI without a bucket, or with one that cannot be.
    """
    bucket, _, key = uri.removeprefix(_SCHEME).partition("/")
    if not is_s3(uri) or not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{uri!r} names no bucket: write s3://bucket/key")
    return bucket, key


def read_object(uri: str, max_bytes: int | None = None) -> bytes:
    """The whole object.

    Raises ObjectNotFound, StorageDenied, StorageUnavailable, or StorageError for whatever else is wrong;
    ObjectTooLarge, before the body is read, if it has more than `max_bytes`; UsageError for a bad URI.
    """
    bucket, key = split_uri(uri)
    if not key:
        raise UsageError(f"{uri!r} names a bucket and no object: write s3://bucket/key")
    from worker.storage.bucket import Bucket

    return Bucket(bucket).get(key, max_bytes)


def list_objects(uri: str) -> Iterator[str]:
    """The URIs that start with `uri`, in the order of S3: by the bytes of their keys. Read page by page.

    Raises UsageError for a bad URI, and the same errors as `read_object`.
    """
    bucket, prefix = split_uri(uri)
    from worker.storage.bucket import Bucket

    for key in Bucket(bucket).keys(prefix):
        yield f"{_SCHEME}{bucket}/{key}"
