"""What stands of a job in its store, and so what is still to be done. The store is the truth about that."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

from worker.contract import keys
from worker.contract.jobs import Job, Retry
from worker.storage.base import Store

_RETRY_RECORD = re.compile(re.escape(keys.RETRIES) + r"([0-9]{3})/([0-9]{6,8})\.parquet", re.ASCII)


@dataclass(frozen=True)
class Todo:
    """The shards whose record is missing, in order; `attempt` 0 is the job itself, then what was retried.

    `n_later` counts the shards that can only be begun when none of these is missing: an audit's atlas.
    """

    attempt: int
    shards: list[int]
    n_later: int = 0


def still_to_do(store: Store, job: Job) -> Todo:
    """What is missing of the job; if nothing, of the last attempt at what had failed. Raises MessageError.

    Of an audit: what is missing of its scan, and if nothing is, of its atlas.
    """
    standing = set(store.list(keys.SHARDS))
    scan, atlas = ([n for n in shards if keys.shard_key(n) not in standing] for shards in _passes(job))
    if scan or job.audit is not None:
        return Todo(0, scan, len(atlas)) if scan else Todo(0, atlas)
    retry = last_retry(store)
    if retry is None:
        return Todo(0, [])
    again = set(store.list(f"{keys.retry_key(retry.attempt).removesuffix('.json')}/"))
    done = {shard for shard in retry.shards if keys.retry_shard_key(retry.attempt, shard) in again}
    return Todo(retry.attempt, [shard for shard in retry.shards if shard not in done])


def is_complete(store: Store, job: Job) -> bool:
    """Whether nothing is missing. Quick while the last shard is: then nothing is listed."""
    last = keys.shard_key(job.n_shards + job.n_atlas_shards - 1)
    return store.exists(last) and not still_to_do(store, job).shards


def is_scanned(store: Store, job: Job) -> bool:
    """Whether all images of an audit are scanned. Quick while the last shard of them is missing."""
    if not store.exists(keys.shard_key(job.n_shards - 1)):
        return False
    return all(shard >= job.n_shards for shard in still_to_do(store, job).shards)


def last_retry(store: Store) -> Retry | None:
    """The last attempt at what had failed; None if there was none. Raises MessageError."""
    files = [key for key in store.list(keys.RETRIES) if key.endswith(".json")]
    return Retry.from_json(store.read(files[-1]), files[-1]) if files else None


def retried_shards(store: Store) -> dict[int, list[int]]:
    """Shard -> the attempts that have a record of it, the earlier first."""
    attempts: dict[int, list[int]] = defaultdict(list)
    for key in store.list(keys.RETRIES):
        match = _RETRY_RECORD.fullmatch(key)
        if match:
            attempts[int(match[2])].append(int(match[1]))
    return attempts


def is_cancelled(store: Store) -> bool:
    """Whether no worker is to begin another shard of the job."""
    return store.exists(keys.CANCELLED)


def _passes(job: Job) -> tuple[range, range]:
    """The shards that work through the images, and those of an audit's atlas."""
    return range(job.n_shards), range(job.n_shards, job.n_shards + job.n_atlas_shards)
