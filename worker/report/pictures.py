"""A job's pictures as data: URIs."""

from __future__ import annotations

import base64

from worker.storage import Store


class Pictures:
    """Reads pictures from a store, and counts their bytes in `n_bytes`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.n_bytes = 0

    def data_uri(self, key: str, offset: int | None, length: int | None, media_type: str) -> str:
        """The picture that is the object `key`, or `length` bytes of it from byte `offset` on.

        Raises a StorageError.
        """
        if offset is None or length is None:
            data = self._store.read(key)
        else:
            data = self._store.read_range(key, offset, length)
        self.n_bytes += len(data)
        return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
