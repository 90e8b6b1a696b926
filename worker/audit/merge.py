"""Between an audit's two passes: from the records of the scan to its statistics and to the atlas's plans."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from worker.audit.reading import countable, profiles_of, scan_records
from worker.audit.statistics import LayerStatistics
from worker.contract import keys, records
from worker.contract.audits import Winners, atlas_chunks, plan_bytes
from worker.contract.errors import JobError
from worker.contract.jobs import Job
from worker.contract.work import Work
from worker.storage import Store

logger = logging.getLogger(__name__)


def merge_once(store: Store, job: Job) -> None:
    """Merge the scan, all of whose records stand, unless it is merged. Twice gives the same bytes."""
    if not store.exists(keys.STATISTICS):
        merge_scan(store, job)
        logger.info("the scan is merged")


def merge_scan(store: Store, job: Job) -> None:
    """Write the plan of each atlas shard and, last of all, `statistics.parquet`, from all scan records.

    The same records always give the same bytes, however the images were cut into shards; only one record is
    in memory at a time. Raises JobError if a record is missing, or if they have different weights.
    """
    if job.audit is None:
        raise JobError(f"job {job.id} is no audit: it has nothing to merge")
    work = Work(job.id, store.place)
    layers = {layer: LayerStatistics(layer, job.audit.top) for layer in job.layers}
    sources: dict[str, tuple[str, str]] = {}
    for record in scan_records(store, job):
        work.add(record.schema.metadata)
        images = countable(record)
        if not len(images):
            continue
        image_keys = images["image_key"].to_pylist()
        for layer, statistics in layers.items():
            statistics.add(np.array(image_keys), profiles_of(images, layer))
        names_and_sha256 = zip(images["image"].to_pylist(), images["source_sha256"].to_pylist(), strict=True)
        sources |= zip(image_keys, names_and_sha256, strict=True)
        winning = set().union(*(statistics.top_images.keys for statistics in layers.values()))
        sources = {key: source for key, source in sources.items() if key in winning}
    for chunk, (layer, units) in enumerate(atlas_chunks(job.layers)):
        store.write(keys.plan_key(chunk), plan_bytes(_plan(layers[layer], units, sources)))
    table = pa.concat_tables([statistics.table() for statistics in layers.values()])
    store.write(keys.STATISTICS, records.to_parquet(table, {records.WEIGHTS_METADATA: work.weights}))


def _plan(
    statistics: LayerStatistics, units: range, sources: dict[str, tuple[str, str]]
) -> Iterator[Winners]:
    """A line an image, in the order of keys."""
    by_key: dict[str, list[tuple[int, int, float]]] = {}
    for unit in units:
        for rank, (key, activation) in enumerate(statistics.top_images.of(unit)):
            by_key.setdefault(key, []).append((unit, rank, activation))
    for key, winners in sorted(by_key.items()):
        image, sha256 = sources[key]
        yield Winners(image=image, key=key, sha256=sha256, winners=tuple(winners))
