"""From an image's name to its bytes: a file's or an object's, only what is allowed, and no more than that."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from worker.contract.errors import (
    ImageNotFound,
    ImageTooLarge,
    ImageUnavailable,
    ImageUnreadable,
    ObjectNotFound,
    ObjectTooLarge,
    StorageError,
    StorageUnavailable,
)
from worker.contract.roots import check_image
from worker.storage.objects import is_s3, read_object

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})
# These say that the machine is in trouble, not the image: the next image would fail the same way.
_MACHINE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def read_image(image: str, max_bytes: int, allowed_roots: Sequence[str]) -> bytes:
    """The bytes of the file, or of the object in a bucket, that `image` names.

    Raises ImageNotAllowed before anything is opened, and ImageTooLarge before anything is read;
    ImageNotFound, ImageUnreadable (a folder, a device, no right to read, an empty file), ImageUnavailable (a
    store that does not answer); StorageError where this machine has no more files or memory.
    """
    check_image(image, allowed_roots)
    data = _read_object(image, max_bytes) if is_s3(image) else _read_file(image, max_bytes)
    if not data:
        raise ImageUnreadable(f"{image} is empty (0 bytes)")
    return data


def _read_object(uri: str, max_bytes: int) -> bytes:
    try:
        return read_object(uri, max_bytes)
    except ObjectNotFound as error:
        raise ImageNotFound(f"there is no object {uri}; it was deleted, or the name is wrong") from error
    except ObjectTooLarge as error:
        raise ImageTooLarge(f"{error}; raise DECONVOY_MAX_IMAGE_BYTES if that is meant") from error
    except StorageUnavailable as error:
        raise ImageUnavailable(
            f"{error}; `resume --failed`, or the next audit, reads the image again"
        ) from error
    except StorageError as error:
        # No access, or no such bucket: true of this image, and the others may lie elsewhere.
        raise ImageUnreadable(str(error)) from error


def _read_file(image: str, max_bytes: int) -> bytes:
    try:
        # A pipe without a writer would block an ordinary open for ever.
        descriptor = os.open(image, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor has no path)
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                raise ImageUnreadable(f"{image} is a folder; name the images in it")
            if not stat.S_ISREG(status.st_mode):
                raise ImageUnreadable(f"{image} is a device or pipe, not a file")
            _check_size(image, status.st_size, max_bytes)
            # One byte more than allowed, in case the file grows under our hands.
            data = file.read(max_bytes + 1)
    except ValueError as error:
        raise ImageNotFound(f"{image!r} cannot be the name of a file: {error}") from error
    except OSError as error:
        raise _translated(image, error) from error
    _check_size(image, len(data), max_bytes)
    return data


def _check_size(image: str, n_bytes: int, max_bytes: int) -> None:
    if n_bytes > max_bytes:
        raise ImageTooLarge(
            f"{image} has {n_bytes} bytes, more than the {max_bytes} allowed; "
            "raise DECONVOY_MAX_IMAGE_BYTES if that is meant"
        )


def _translated(image: str, error: OSError) -> ImageNotFound | ImageUnreadable | StorageError:
    if error.errno in _ABSENT:
        return ImageNotFound(f"there is no file {image}; it was moved or deleted, or the path is wrong")
    if error.errno in _MACHINE:
        return StorageError(f"cannot read {image}: {error.strerror}; this machine has run out of it")
    return ImageUnreadable(f"{image} cannot be read: {error.strerror}")
