"""Where a job's objects stand: a folder or a bucket behind one small interface."""

from worker.storage.base import Store
from worker.storage.factory import open_store

__all__ = ["Store", "open_store"]
