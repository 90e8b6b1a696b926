"""What a status says: the store decides, Redis adds what is under way. No Redis here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from producer.broker import Broker, Live
from producer.status import JobStatus, read_status
from tests.memory_store import MemoryStore
from tests.unit.standin import make_job
from worker.contract import keys, queue
from worker.contract.errors import BrokerError, MessageError
from worker.contract.jobs import Job, Request, Retry
from worker.storage.standing import (
    Todo,
    is_cancelled,
    is_complete,
    last_retry,
    retried_shards,
    still_to_do,
)

NOTHING = Live(counters={}, errors={}, notes={}, stages={}, resources={})


class Known(Broker):
    """A broker that knows this much; None: it does not answer."""

    def __init__(self, known: Live | None) -> None:
        self._known = known

    def live(self, job_id: str) -> Live:  # noqa: ARG002 (there is one)
        if self._known is None:
            raise BrokerError("Redis does not answer")
        return self._known


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def job(store: MemoryStore) -> Job:
    """Seven images in three shards."""
    return make_job(store, [Path(f"{number}.png") for number in range(7)], Request(), shard_size=3)


def do(store: MemoryStore, *shards: int) -> None:
    for shard in shards:
        store.write(keys.shard_key(shard), b"")


def finish(store: MemoryStore, n_failed: int = 0) -> None:
    summary = {
        "n_images": 7,
        "n_failed": n_failed,
        "stages": {"read": 1.5, "forward": 20.25},
        "slowest_stage": "forward",
        "resources": {"peak_rss_bytes": 1000},
    }
    store.write(keys.SUMMARY, json.dumps(summary).encode())
    store.write(keys.REPORT, b"")


def state_of(job: Job, store: MemoryStore, errors: Mapping[str, str]) -> str:
    return read_status(job, store, Known(replace(NOTHING, errors=dict(errors)))).state


def test_records_that_stand_are_not_to_do(store: MemoryStore, job: Job) -> None:
    assert still_to_do(store, job) == Todo(0, [0, 1, 2])
    assert not is_complete(store, job)
    do(store, 2)
    assert still_to_do(store, job) == Todo(0, [0, 1])
    assert not is_complete(store, job)
    do(store, 0, 1)
    assert still_to_do(store, job) == Todo(0, [])
    assert is_complete(store, job)


def test_of_several_attempts_the_last_one_is_to_do(store: MemoryStore, job: Job) -> None:
    do(store, 0, 1, 2)
    assert last_retry(store) is None
    assert retried_shards(store) == {}
    for attempt, shards in ((1, (0, 2)), (2, (2,))):
        store.write(keys.retry_key(attempt), Retry(attempt=attempt, shards=shards).to_json())
        assert still_to_do(store, job) == Todo(attempt, [*shards])
        assert not is_complete(store, job)
        for shard in shards:
            store.write(keys.retry_shard_key(attempt, shard), b"")
    assert is_complete(store, job)
    assert last_retry(store) == Retry(attempt=2, shards=(2,))
    assert retried_shards(store) == {0: [1], 2: [1, 2]}


def test_a_record_of_the_job_that_is_missing_comes_before_any_retry(store: MemoryStore, job: Job) -> None:
    store.write(keys.retry_key(1), Retry(attempt=1, shards=(0,)).to_json())
    do(store, 0, 2)
    assert still_to_do(store, job) == Todo(0, [1])


def test_a_retry_file_that_cannot_be_read_is_named(store: MemoryStore, job: Job) -> None:
    do(store, 0, 1, 2)
    store.write(keys.retry_key(1), b"{}")
    with pytest.raises(MessageError, match=keys.retry_key(1)):
        still_to_do(store, job)


def test_a_job_is_cancelled_while_the_file_stands(store: MemoryStore, job: Job) -> None:
    assert not is_cancelled(store)
    store.write(keys.CANCELLED, b"{}")
    assert is_cancelled(store)
    assert read_status(job, store, None).state == "cancelled"
    assert read_status(job, store, None).stopped
    do(store, 0, 1, 2)
    finish(store)
    assert read_status(job, store, None).state == "finished"


@pytest.mark.parametrize("broker", [None, Known(None)])
def test_without_redis_whole_shards_are_counted_and_the_status_says_so(
    store: MemoryStore, job: Job, broker: Broker | None
) -> None:
    do(store, 0)
    assert read_status(job, store, broker) == JobStatus(
        id=job.id,
        place=store.place,
        state="unfinished",
        attempt=0,
        n_images=7,
        n_done=3,
        n_failed=0,
        n_shards=3,
        n_shards_done=1,
        live=False,
    )
    # The last shard is shorter.
    do(store, 2)
    assert read_status(job, store, broker).n_done == 4


def test_what_is_under_way_is_counted_once(store: MemoryStore, job: Job) -> None:
    do(store, 0)
    live = replace(
        NOTHING,
        counters={0: (3, 1), 1: (2, 1)},
        notes={"1": "waiting for the store", "2": "waiting for the store"},
        stages={"read": 2.0, "forward": 5.0},
        resources={"peak_rss_bytes": 7},
    )
    status = read_status(job, store, Known(live))
    assert (status.n_done, status.n_failed, status.live) == (3 + 2, 2, True)
    assert status.notes == ("waiting for the store",)
    assert (status.slowest_stage, status.stages, status.resources) == (
        "forward",
        {"read": 2.0, "forward": 5.0},
        {"peak_rss_bytes": 7},
    )


def test_a_finished_job_tells_of_all_its_work_without_redis(store: MemoryStore, job: Job) -> None:
    do(store, 0, 1, 2)
    assert read_status(job, store, None).state == "unfinished"
    finish(store, n_failed=2)
    status = read_status(job, store, None)
    assert status.finished
    assert (status.n_done, status.n_failed, status.n_shards_done) == (7, 2, 3)
    assert (status.slowest_stage, status.stages["forward"]) == ("forward", 20.25)
    assert status.resources == {"peak_rss_bytes": 1000}


def test_a_job_that_is_tried_again_is_not_finished(store: MemoryStore, job: Job) -> None:
    do(store, 0, 1, 2)
    finish(store, n_failed=1)
    store.write(keys.retry_key(1), Retry(attempt=1, shards=(1,)).to_json())
    status = read_status(job, store, None)
    assert (status.state, status.attempt, status.n_shards_done, status.n_done) == ("unfinished", 1, 2, 7)


def test_a_summary_that_is_no_json_is_named(store: MemoryStore, job: Job) -> None:
    do(store, 0, 1, 2)
    finish(store)
    store.write(keys.SUMMARY, b"cut sho")
    with pytest.raises(MessageError, match=keys.SUMMARY):
        read_status(job, store, None)


def test_a_job_stops_when_all_that_is_missing_has_failed(store: MemoryStore, job: Job) -> None:
    do(store, 0)
    assert state_of(job, store, {}) == "unfinished"
    assert state_of(job, store, {"1": "StorageFull: full"}) == "unfinished"
    assert state_of(job, store, {"1": "StorageFull: full", "2": "StorageFull: full"}) == "stopped"
    assert state_of(job, store, {queue.WHOLE_JOB: "WeightsError: other"}) == "stopped"
    assert state_of(job, store, {"1": "", "999": "JobError: none of the job's"}) == "unfinished"
    status = read_status(job, store, Known(replace(NOTHING, errors={"1": "same", "2": "same"})))
    assert status.errors == ("same",)
