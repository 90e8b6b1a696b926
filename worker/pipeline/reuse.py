"""Rows of a scan that are taken from an earlier audit: those of images whose bytes are still the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from worker.audit import open_baseline
from worker.audit.reading import read_table
from worker.contract import keys
from worker.contract.audit_tables import IMAGES_SCHEMA, profile_schema
from worker.contract.errors import ImageError, JobError
from worker.contract.jobs import Job, ManifestEntry
from worker.pipeline.intake import Intake
from worker.pipeline.loading import Loader
from worker.storage import Store, open_store


class Seen(NamedTuple):
    """An image of the baseline: the hash of its bytes, and the shard whose record has its row."""

    image_key: str
    sha256: str
    shard: int


class Scanned:
    """The scan of a finished audit, whose rows hold for the job `job` too."""

    def __init__(self, store: Store, job: Job) -> None:
        self._store = store
        self._schema = profile_schema(job.layers)

    @classmethod
    def before(cls, job: Job, weights: bytes) -> Scanned | None:
        """The job's baseline; None where all images are to be computed.

        Raises JobError where the baseline is none, or is of another network or another preparation.
        """
        if job.audit is None or job.audit.recompute:
            return None
        baseline = open_baseline(job, weights)
        return None if baseline is None else cls(baseline.store, baseline.job)

    def seen(self, entries: Mapping[int, ManifestEntry]) -> dict[int, Seen]:
        """Those of the images that the baseline has seen and could use, by position."""
        images = _usable_images(self._store.place)
        wanted = pa.array([entry.key for entry in entries.values()], pa.string())
        rows = images.filter(pc.is_in(images["image_key"], value_set=wanted))
        columns = (rows[name].to_pylist() for name in ("image_key", "source_sha256", "shard"))
        by_key = {key: Seen(key, sha256, shard) for key, sha256, shard in zip(*columns, strict=True)}
        return {place: by_key[entry.key] for place, entry in entries.items() if entry.key in by_key}

    def rows(self, seen: Mapping[int, Seen]) -> Iterator[tuple[list[int], pa.Table]]:
        """The rows of the images `seen`, with their positions: those of one shard of the baseline at a time.

        Raises JobError if a record has no row of the bytes that were seen.
        """
        by_shard: dict[int, list[int]] = defaultdict(list)
        for position, image in seen.items():
            by_shard[image.shard].append(position)
        for shard, positions in sorted(by_shard.items()):
            yield positions, self._rows(shard, [seen[position] for position in positions])

    def _rows(self, shard: int, seen: Sequence[Seen]) -> pa.Table:
        record = keys.shard_key(shard)
        table = read_table(self._store, record, self._schema)
        columns = (table[name].to_pylist() for name in ("image_key", "source_sha256"))
        places = {image: place for place, image in enumerate(zip(*columns, strict=True))}
        absent = [image.image_key for image in seen if (image.image_key, image.sha256) not in places]
        if absent:
            raise JobError(
                f"baseline {self._store.place}: {keys.IMAGES} and {record} do not say the same of image "
                f"{absent[0]}; compare with another audit, or recompute"
            )
        return table.take([places[image.image_key, image.sha256] for image in seen])


@lru_cache(maxsize=1)
def _usable_images(place: str) -> pa.Table:
    """Key, hash and shard of the images of a finished audit that are `ok`.

    Kept for all shards of a process: to read the list of a million images takes seconds.
    """
    columns = ["image_key", "status", "source_sha256", "shard"]
    images = read_table(open_store(place), keys.IMAGES, IMAGES_SCHEMA, columns)
    return images.filter(pc.equal(images["status"], "ok"))


@dataclass(frozen=True)
class Checked:
    """The bytes of an image were read, or could not be; whether they are still the same."""

    position: int
    is_same: bool


class Check:
    """Finds out which images still have the bytes that a baseline has seen: they are read, and no more."""

    def __init__(self, seen: Mapping[int, Seen], on_same: Callable[[int], None]) -> None:
        self._seen = seen
        self._on_same = on_same
        self._n_answers = 0
        self.unchanged: dict[int, Seen] = {}

    def run(self, entries: Mapping[int, ManifestEntry], loader: Loader, intake: Intake[Checked]) -> None:
        """Check all; `on_same(n)` is called whenever there are `n` unchanged ones."""
        for position, seen in self._seen.items():
            loader.readers.submit(partial(_checked, loader, position, entries[position], seen.sha256))
        while self._n_answers < len(self._seen):
            intake.take()

    def on_checked(self, checked: Checked) -> None:
        """Take one answer."""
        self._n_answers += 1
        if checked.is_same:
            self.unchanged[checked.position] = self._seen[checked.position]
            self._on_same(len(self.unchanged))


def _checked(loader: Loader, position: int, entry: ManifestEntry, sha256: str) -> Checked:
    try:
        source = loader.read(entry)
    except ImageError:
        # Left to the ordinary way, which makes a failed row of it.
        return Checked(position, is_same=False)
    return Checked(position, source.sha256 == sha256)
