"""A worker meets what another version has left: it goes on with it, or refuses it and leaves it as it is."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import redis

from producer.jobs import JobHandle, open_job
from tests.cluster import wait_until
from tests.length import at_length
from tests.messages import body_of, envelope, listed, shard_message
from worker.contract import keys, queue, records
from worker.contract.errors import MessageError
from worker.contract.jobs import FORMAT_VERSION
from worker.contract.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture
def job(submit_small: Callable[[int], JobHandle]) -> JobHandle:
    """A job of three shards."""
    return submit_small(1)


def change_job_file(handle: JobHandle, **fields: object) -> bytes:
    """Write `job.json` as another version would have; returns its bytes."""
    changed = {**json.loads(handle.store.read(keys.JOB)), **fields}
    data = json.dumps(changed).encode()
    handle.store.write(keys.JOB, data)
    return data


def contents(handle: JobHandle) -> dict[str, bytes]:
    return {key: handle.store.read(key) for key in handle.store.list("")}


@at_length
def test_a_job_that_an_older_minor_version_began_is_finished(
    job: JobHandle, redis_url: str, worker: subprocess.Popen[str]
) -> None:
    job.wait()
    before = job.index().drop(["seconds"])
    # As it stands when the workers are replaced in the middle of it.
    change_job_file(job, versions={"deconvoy": "0.0.9", "python": "3.10.0", "unknown": "1"})
    for key in (keys.shard_key(2), keys.INDEX, keys.SUMMARY, keys.REPORT):
        job.store.delete(key)
    resumed = open_job(job.place, Settings(redis_url=redis_url))
    assert resumed.resume() == 1
    resumed.wait()
    assert resumed.index().drop(["seconds"]).equals(before)
    assert worker.poll() is None


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, FORMAT_VERSION - 1, "1", None])
def test_a_job_file_of_another_format_is_refused_by_the_producer_and_nothing_is_changed(
    job: JobHandle, redis_url: str, version: object
) -> None:
    change_job_file(job, format_version=version)
    before = contents(job)
    with pytest.raises(MessageError, match="use the same deconvoy version for producer and workers"):
        open_job(job.place, Settings(redis_url=redis_url))
    assert contents(job) == before


def test_a_job_file_of_another_format_is_refused_by_the_worker_and_is_done_by_one_that_knows_it(
    job: JobHandle, redis_url: str, client: redis.Redis, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    ours = job.store.read(keys.JOB)
    change_job_file(job, format_version=FORMAT_VERSION + 1, news={"a": 1})
    before = contents(job)
    request.getfixturevalue("worker")
    log = tmp_path / "worker.log"
    wait_until(lambda: log.read_text().count("is not of format version 1") == 3, "all shards are refused")
    assert contents(job) == before
    assert job.status().errors
    # "Upgraded": the worker now finds what it knows.
    job.store.write(keys.JOB, ours)
    wait_until(lambda: not client.hlen(queue.UNACKED_KEY), "all messages are acknowledged")
    assert job.resume() == 3
    assert job.wait().n_failed == 0


@at_length
def test_a_message_of_another_format_is_refused_and_the_shard_is_not_lost(
    job: JobHandle, worker: subprocess.Popen[str], client: redis.Redis, tmp_path: Path
) -> None:
    body = shard_message(job.place, job=job.id, format_version=FORMAT_VERSION + 1, news="x")
    client.lpush(queue.list_key(0), listed(envelope(body_of(body))))
    log = tmp_path / "worker.log"
    wait_until(lambda: "refused a message: message is not of format version 1" in log.read_text(), "refused")
    assert job.wait().n_failed == 0
    assert worker.poll() is None


def test_records_with_other_columns_are_refused_and_stay(
    job: JobHandle, client: redis.Redis, worker: subprocess.Popen[str]
) -> None:
    job.wait()
    key = keys.shard_key(1)
    table = records.from_parquet(job.store.read(key), key)
    other = table.append_column("news", pa.array([1] * len(table)))
    job.store.write(key, records.to_parquet(other, table.schema.metadata))
    job.store.delete(keys.REPORT)
    before = contents(job)
    assert job.resume() == 1
    wait_until(lambda: bool(client.hlen(queue.errors_key(job.id))), "the job says what is wrong")
    (said,) = client.hvals(queue.errors_key(job.id))
    assert "has other columns than this version's; use the version that wrote it" in said
    assert contents(job) == before
    assert worker.poll() is None
