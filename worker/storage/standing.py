"""What stands of a job in its store, and so what is still to be done. The store is the truth about that."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from worker.contract import keys
from worker.contract.jobs import Job, Retry
from worker.storage.base import Store


@dataclass(frozen=True)
class Todo:
    """The shards whose record is missing, in order; `attempt` 0 is the job itself, then what was retried."""

    attempt: int
    shards: list[int]


def still_to_do(store: Store, job: Job) -> Todo:
    """What is missing of the job; if nothing, of the last attempt at what had failed. Raises MessageError."""
    standing = set(store.list(keys.SHARDS))
    missing = [shard for shard in range(job.n_shards) if keys.shard_key(shard) not in standing]
    retry = None if missing else last_retry(store)
    if retry is None:
        return Todo(0, missing)
    again = set(store.list(f"{keys.retry_key(retry.attempt).removesuffix('.json')}/"))
    done = {shard for shard in retry.shards if keys.retry_shard_key(retry.attempt, shard) in again}
    return Todo(retry.attempt, [shard for shard in retry.shards if shard not in done])


def is_complete(store: Store, job: Job) -> bool:
    """Whether nothing is missing. Quick while the last shard is: then nothing is listed."""
    last = keys.shard_key(job.n_shards - 1)
    return store.exists(last) and not still_to_do(store, job).shards


def last_retry(store: Store) -> Retry | None:
    """The last attempt at what had failed; None if there was none. Raises MessageError."""
    files = [key for key in store.list(keys.RETRIES) if key.endswith(".json")]
    return Retry.from_json(store.read(files[-1]), files[-1]) if files else None


def retried_shards(store: Store) -> dict[int, list[int]]:
    """Shard -> the attempts that have a record of it, the earlier first."""
    attempts: dict[int, list[int]] = defaultdict(list)
    for key in store.list(keys.RETRIES):
        attempt, slash, name = key.removeprefix(keys.RETRIES).partition("/")
        if slash:
            attempts[int(name.removesuffix(".parquet"))].append(int(attempt))
    return attempts


def is_cancelled(store: Store) -> bool:
    """Whether no worker is to begin another shard of the job."""
    return store.exists(keys.CANCELLED)
