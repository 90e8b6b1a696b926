"""The one tree of exceptions. Each message is one line: what happened, to which thing, what to do.

DeconvoyError
├── UsageError              wrong use; nothing was started (exit code 2)
│   ├── SpecError           a layer spec that names no layer or no selection
│   ├── SettingsError       an environment variable with a wrong value
│   └── SourceError         an image source that is not there or cannot be read as one
├── ImageError              one image cannot be used: becomes a `failed` row, the job goes on
│   ├── ImageNotFound
│   ├── ImageUnreadable     bytes that cannot be decoded
│   ├── ImageNotAllowed     outside the allowed roots, or neither a file nor an object; nothing was read
│   ├── ImageUnavailable    the store did not answer
│   ├── ImageQuarantined    processes died while they worked on it; a `quarantined` row
│   ├── ImageTooLarge       more bytes or pixels than allowed
│   └── ImageTooSmall       smaller than the network's pools need
├── StorageError
│   ├── ObjectNotFound
│   ├── ObjectTooLarge      more bytes than the caller allows; nothing was read
│   ├── StorageDenied
│   ├── StorageFull
│   └── StorageUnavailable  no answer after all retries
├── BrokerError             Redis does not answer, or refuses
├── MessageError            a message or job file that this version does not understand
├── JobError                no such job, or one that contradicts what is asked
├── WeightsError            weights that cannot be had or do not fit
├── DeviceError             a device or precision that this machine does not have
└── ComponentError          a program or package that is needed and missing
"""

from __future__ import annotations


def one_line(error: BaseException) -> str:
    """What a foreign exception says, as a part of a line of ours: nothing in it that would break one."""
    text = "".join(character if character.isprintable() else " " for character in str(error))
    return " ".join(text.split()) or type(error).__name__


class DeconvoyError(Exception):
    """Base of every error a user may see.

    `exit_code` is what the command line ends with; `retryable` says whether the same call may
    succeed later with nothing changed.
    """

    exit_code = 1
    retryable = False


class UsageError(DeconvoyError):
    """The command, option or argument is wrong; nothing was started."""

    exit_code = 2


class SpecError(UsageError):
    """A layer spec names no layer or no selection of the model."""


class SettingsError(UsageError):
    """A setting in the environment has a value that cannot be used."""


class SourceError(UsageError):
    """An image source is not there, is empty, or cannot be read as one."""


class ImageError(DeconvoyError):
    """One image cannot be used. The class name stands in the row's `error` column."""


class ImageNotFound(ImageError):
    """The image vanished between submission and work, or was never there."""


class ImageUnreadable(ImageError):
    """The bytes are no image, are cut short, or are of a format that is not allowed."""


class ImageNotAllowed(ImageError):
    """The image lies outside the allowed roots, or is neither a file nor an object; nothing was read."""


class ImageUnavailable(ImageError):
    """The store did not answer after all retries; the image itself may be well."""

    retryable = True


class ImageQuarantined(ImageError):
    """Several processes died while they worked on this image; it is not touched again by itself."""


class ImageTooLarge(ImageError):
    """The file has more bytes, or the picture more pixels, than the limit."""


class ImageTooSmall(ImageError):
    """The preprocessed image is smaller than the network's pools need (32 x 32 for VGG)."""


class StorageError(DeconvoyError):
    """A store cannot do what it was asked."""


class ObjectNotFound(StorageError):
    """There is no object under this key."""


class ObjectTooLarge(StorageError):
    """The object has more bytes than the caller allows. Its body was not read."""


class StorageDenied(StorageError):
    """The store refuses access."""


class StorageFull(StorageError):
    """No space is left."""


class StorageUnavailable(StorageError):
    """The store did not answer, or only with faults of its own, after all retries."""

    retryable = True


class BrokerError(DeconvoyError):
    """Redis does not answer, refuses the login, or is full."""

    retryable = True


class MessageError(DeconvoyError):
    """A message or job file is not of a version and shape that this version understands."""


class JobError(DeconvoyError):
    """There is no such job, or it contradicts what is asked of it."""


class WeightsError(DeconvoyError):
    """Weights cannot be had, fail their hash, or do not fit the model."""


class DeviceError(DeconvoyError):
    """A device or precision that this machine does not have."""


class ComponentError(DeconvoyError):
    """A program or Python package that is needed here is missing."""
