"""A folder as a store: one file an object, written beside its place and moved there in one step."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from worker.contract.errors import ObjectNotFound, StorageDenied, StorageError, StorageFull
from worker.storage.base import check_key, check_prefix, check_range

_TEMPORARY_PREFIX = ".deconvoy-tmp-"
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})


class FolderStore:
    """The files under one folder, which is made when the first object is written.

    What was written outlives the process, not a power cut: nothing is synced to the disk. An object
    that a killed process was writing stays behind as a hidden file that no method shows.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def place(self) -> str:
        """The folder's absolute path."""
        return str(self._root)

    def read(self, key: str) -> bytes:
        """The file's bytes. Raises ObjectNotFound, also where `key` is a folder."""
        path = self._path(key)
        with self._translated("read", key):
            return path.read_bytes()

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """The `length` bytes of the file from byte `offset` on.

        Raises ObjectNotFound, and StorageError where the file ends earlier.
        """
        path = self._path(key)
        check_range(offset, length)
        with self._translated("read", key), path.open("rb") as file:
            # Asked first: a length from a broken index must not ask this machine for its memory.
            n_bytes = os.fstat(file.fileno()).st_size
            file.seek(offset)
            data = file.read(length) if offset + length <= n_bytes else b""
        if len(data) < length:
            raise StorageError(f"{key!r} in {self.place} ends before byte {offset + length}")
        return data

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Put a file, with the folders above it. Of several racers with `if_absent` one gets True."""
        path = self._path(key)
        with self._translated("write", key), _beside(path) as temporary:
            with temporary.open("xb") as file:
                file.write(data)
            if if_absent:
                return self._link(temporary, path)
            temporary.replace(path)
            return True

    def write_file(self, key: str, path: Path) -> None:
        """Put a copy of a file, with the folders above it. Raises StorageError if `path` cannot be read."""
        target = self._path(key)
        try:
            source = path.open("rb")
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from error
        with source, self._translated("write", key), _beside(target) as temporary:
            with temporary.open("xb") as file:
                shutil.copyfileobj(source, file)
            temporary.replace(target)

    def exists(self, key: str) -> bool:
        """Whether there is such a file. Raises StorageDenied where that cannot be seen."""
        path = self._path(key)
        try:
            with self._translated("look for", key):
                path.stat()
                return not path.is_dir()
        except ObjectNotFound:
            return False

    def delete(self, key: str) -> None:
        """Take a file away, if it stands; the folders above it stay."""
        path = self._path(key)
        with suppress(ObjectNotFound), self._translated("delete", key):
            path.unlink()

    def list(self, prefix: str) -> Iterator[str]:
        """The keys that start with `prefix`, sorted; a folder is read when its turn comes."""
        check_prefix(prefix)
        folder, slash, start = prefix.rpartition("/")
        with self._translated("list", prefix):
            yield from _walk(self._root / folder, folder + slash, start)

    def folders(self) -> Iterator[str]:
        """The folders right in this one that are no empty shell."""
        with self._translated("list", ""):
            try:
                names = sorted(entry.name for entry in os.scandir(self._root) if entry.is_dir())
            except FileNotFoundError:
                return
        for name in names:
            if next(self.list(f"{name}/"), None) is not None:
                yield name

    def link(self, key: str, expires_s: int) -> str:  # noqa: ARG002 (a file's link holds for ever)
        """The file's URI, which holds for as long as the file stands."""
        path = self._path(key)
        with self._translated("link to", key):
            return path.as_uri()

    def _path(self, key: str) -> Path:
        check_key(key)
        parts = key.split("/")
        if any(part.startswith(_TEMPORARY_PREFIX) for part in parts):
            raise StorageError(f"key {key!r} is not allowed: such names are kept for files half written")
        return self._root.joinpath(*parts)

    def _link(self, temporary: Path, path: Path) -> bool:
        """Give the finished file its name, unless the name is taken: the one step where a racer wins."""
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            raise StorageError(
                f"the file system of {self.place} has no hard links, which commits need ({error.strerror}); "
                "use a folder on another file system"
            ) from error
        return True

    @contextmanager
    def _translated(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except UnicodeEncodeError as error:
            raise StorageError(f"key {key!r} cannot be a file name: {error.reason}") from error
        except OSError as error:
            what = f"cannot {verb} {key!r} in {self.place}: {error.strerror or error}"
            if error.errno in _ABSENT and verb != "write":
                raise ObjectNotFound(f"there is no object {key!r} in {self.place}") from error
            if error.errno in _DENIED:
                raise StorageDenied(f"{what}; check the owner and the rights of the folder") from error
            if error.errno in _FULL:
                raise StorageFull(f"{what}; free some space and resume the job") from error
            raise StorageError(what) from error


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name for a new file in the folder of `path`, which is made; what is left there is removed.

    Not tempfile: its files are for their owner alone, these are as open as the umask says.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{_TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _walk(folder: Path, before: str, start: str) -> Iterator[str]:
    """The keys of the files under `folder` whose name begins with `start`, in the order of the keys."""
    try:
        with os.scandir(folder) as entries:
            # A folder sorts as its keys do, with the slash: "a.png" stands before "a/b.png".
            names = sorted(
                entry.name + "/" * entry.is_dir()
                for entry in entries
                if entry.name.startswith(start) and not entry.name.startswith(_TEMPORARY_PREFIX)
            )
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        if name.endswith("/"):
            yield from _walk(folder / name, before + name, "")
        else:
            yield before + name
