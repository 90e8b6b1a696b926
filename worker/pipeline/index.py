"""What the records of a job say together: what is missing, the index, and where the time went."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from worker.contract import keys, records
from worker.contract.errors import JobError
from worker.contract.jobs import Job
from worker.storage import Store


def missing_shards(store: Store, job: Job) -> list[int]:
    """The shards without a record, in order: what is still to be done."""
    standing = set(store.list(keys.SHARDS))
    return [shard for shard in range(job.n_shards) if keys.shard_key(shard) not in standing]


def compact(store: Store, job: Job) -> pa.Table:
    """Join all records into `index.parquet`, and return it: by manifest order, then spec, then unit.

    Raises JobError if a shard is missing, or if shards were computed with different weights.
    """
    tables = list(_records(store, job))
    # By sha256: the same file may have another path on another machine.
    found = [(table.schema.metadata or {}).get(records.WEIGHTS_METADATA, b"") for table in tables]
    weights = {name_and_sha256.rpartition(b" ")[2]: name_and_sha256 for name_and_sha256 in found}
    if len(weights) > 1:
        names = " and ".join(sorted(name.decode() for name in weights.values()))
        raise JobError(
            f"job {job.id}: its shards were computed with different weights ({names}); delete "
            f"{keys.SHARDS} in {store.place} and give all workers the same file"
        )
    # Each record is in order already, and shards are slices of the manifest.
    index = pa.concat_tables(table.replace_schema_metadata(None) for table in tables)
    index = index.replace_schema_metadata({records.WEIGHTS_METADATA: found[0]})
    store.write(keys.INDEX, records.to_parquet(index, index.schema.metadata))
    return index


def stage_seconds(store: Store, job: Job) -> dict[str, float]:
    """Seconds by stage, summed over all shards and their threads. Raises JobError if one is missing."""
    total: Counter[str] = Counter()
    for table in _records(store, job):
        total.update(json.loads((table.schema.metadata or {}).get(records.STAGES_METADATA, b"{}")))
    return dict(total)


def _records(store: Store, job: Job) -> Iterator[pa.Table]:
    missing = missing_shards(store, job)
    if missing:
        raise JobError(
            f"job {job.id}: {len(missing)} of {job.n_shards} shards are not done, the first is "
            f"{missing[0]}; submit the job again to have them done"
        )
    for shard in range(job.n_shards):
        key = keys.shard_key(shard)
        yield records.from_parquet(store.read(key), key)
