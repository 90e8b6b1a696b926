"""Whoever can write to Redis puts in what he likes: it is refused and logged, and the worker goes on.

All of it stands in the list at once; the good job comes last, and the same worker does it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
import redis

from producer.jobs import JobHandle
from tests.cluster import family, private_deconvoy, redis_server, wait_until
from tests.length import at_length
from tests.messages import (
    body_of,
    envelope,
    listed,
    pickled,
    shard_message,
    with_headers,
    with_properties,
)
from worker.contract import keys, queue
from worker.fleet.deliveries import MOST_LOSSES

pytestmark = pytest.mark.integration

Message = dict[str, Any]


def hostile_envelopes(place: Path, trap: Path) -> dict[str, bytes]:
    """What kombu and Celery must not be given: each alone would end the worker, or have it do more."""
    good = envelope(body_of(shard_message(place)))
    touch = f"touch {trap}"
    messages: dict[str, Message] = {
        "no header": {**good, "headers": {}},
        "no properties": {**good, "properties": {}},
        "pickle": envelope(pickled(trap), **{"content-type": "application/x-python-serialize"}),
        "pickle as data": envelope(pickled(trap), **{"content-type": "application/data"}),
        "pickle as binary": envelope(pickled(trap), **{"content-encoding": "binary"}),
        "pickle as JSON": envelope(pickled(trap)),
        "YAML": envelope(
            f"!!python/object/apply:os.system ['{touch}']".encode(), **{"content-type": "application/x-yaml"}
        ),
        "a body that is no list": envelope(b'"text"'),
        "a body that is two": envelope(b"[[], {}]"),
        "a body of brackets": envelope(b"[" * 100_000),
        "a body that is no text": envelope(b"\xff\xfe"),
        "arguments that are none": envelope(b'[{"a": 1}, {}, {}]'),
        "a call back": envelope(body_of(after={"callbacks": [{"task": "os.system", "args": [touch]}]})),
        "a chain": envelope(body_of(after={"chain": [{"task": "os.system", "args": [touch]}]})),
        "not base64": {**good, "body": "%%%"},
        "unknown encoding": with_properties(good, body_encoding="rot13"),
        "a task of the system": with_headers(envelope(body_of(touch)), task="os.system"),
        "a task of Celery": with_headers(envelope(body_of("id", [touch])), task="celery.map"),
        "a task that nobody has": with_headers(good, task="deconvoy.nobody"),
        "a task that is a list": with_headers(good, task=["deconvoy.shard"]),
        "no id": with_headers(good, id=None),
        "compressed": with_headers(good, compression="gzip"),
        "in a thousand years": with_headers(good, eta="2999-01-01T00:00:00"),
        "without a time limit": with_headers(good, timelimit=[10**9, 10**9]),
        "time limits that are none": with_headers(good, timelimit=["x", {}]),
        "huge numbers": with_headers(good, retries=10**400),
        "tag that is none": with_properties(good, delivery_tag={}),
        "priority that is none": with_properties(good, priority="x"),
        "shard that is none": with_headers(good, **{queue.JOB_HEADER: ["x"], queue.SHARD_HEADER: "x"}),
    }
    raw = {
        "garbage": b"\x80\x04\xff\xfe garbage",
        "a pickle itself": pickled(trap),
        "nothing": b"",
        "half": b"{",
        "null": b"null",
        "a number": b"7" * 5000,
        "brackets": b"[" * 200_000,
        "an empty object": b"{}",
        "50 MB": listed(envelope(body_of(shard_message("x" * (50 * 2**20))))),
    }
    return {**raw, **{name: listed(message) for name, message in messages.items()}}


def hostile_bodies(place: Path) -> dict[str, object]:
    """What a task of ours must not do."""
    return {
        "another version": shard_message(place, format_version=2),
        "no version": {"job": "a-job", "place": str(place), "shard": 0},
        "another field": shard_message(place, run="rm"),
        "no place": shard_message(""),
        "a place with NUL": shard_message("/x\0y"),
        "a place of lines": shard_message("/x\nforged"),
        "a place elsewhere": shard_message("http://169.254.169.254/latest"),
        "a place that is a bucket's parent": shard_message("s3://bucket/../other"),
        "a place without a job": shard_message(place.parent / "nowhere"),
        "a long place": shard_message("/" + "x" * 10_000),
        "a job of lines": shard_message(place, job="a\nforged"),
        "a path for a job": shard_message(place, job="../../etc"),
        "other people's job": shard_message(place, job="other-people-s"),
        "a shard that is not": shard_message(place, shard=5),
        "a huge shard": shard_message(place, shard=10**400),
        "a negative shard": shard_message(place, shard=-1),
        "half a shard": shard_message(place, shard=0.5),
        "not a number": shard_message(place, shard=float("nan")),
        "a huge attempt": shard_message(place, attempt=10**9),
        "text": "text",
        "lists": [[[]]],
        "nothing": None,
    }


@pytest.fixture(scope="module")
def module_folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="dv-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def redis_url(module_folder: Path) -> Iterator[str]:
    """One Redis for all tests of this module."""
    with redis_server(module_folder) as url:
        yield url


@pytest.fixture(scope="module")
def celery(module_folder: Path, redis_url: str) -> Iterator[psutil.Process]:
    """The one Celery worker that must outlive all of them, and not one that was started in its place."""
    log, deconvoy = module_folder / "worker.log", private_deconvoy(module_folder / "tmp")
    with deconvoy.logging(log, "worker", "--gpus", "none", DECONVOY_REDIS_URL=redis_url) as launcher:
        wait_until(lambda: " ready." in log.read_text(), "the worker is ready")
        (process,) = [
            process
            for process in family(launcher.pid)
            if any("worker.app" in argument for argument in process.cmdline())
        ]
        yield process


@pytest.fixture
def said(celery: psutil.Process, module_folder: Path) -> Callable[[], str]:
    """What the worker has said since the test began."""
    log = module_folder / "worker.log"
    n_before = len(log.read_text())
    return lambda: log.read_text()[n_before:]


@pytest.fixture
def job(submit_small: Callable[[int], JobHandle]) -> JobHandle:
    """A job of two shards, finished by nobody yet."""
    return submit_small(2)


def errors_in(client: redis.Redis) -> dict[str, dict[str, str]]:
    """What is published of jobs that have failed."""
    return {
        str(key): {str(field): str(text) for field, text in client.hgetall(key).items()}
        for key in client.keys(queue.errors_key("*"))
    }


def test_what_is_no_message_is_dropped_and_the_same_worker_does_the_next_job(
    celery: psutil.Process, said: Callable[[], str], client: redis.Redis, job: JobHandle, tmp_path: Path
) -> None:
    trap, errors_before = tmp_path / "trap", errors_in(client)
    wait_until(lambda: job.status().finished, "the job is finished")
    hostile = hostile_envelopes(tmp_path / "nowhere", trap)
    for data in hostile.values():
        client.lpush(queue.list_key(0), data)

    wait_until(lambda: not client.llen(queue.list_key(0)), "all of it is taken")
    n_refused = len(hostile) - 1
    wait_until(lambda: said().count("refused a message") == n_refused, f"{n_refused} are refused")
    # The one whose envelope is in order is refused by Celery.
    wait_until(lambda: "unregistered task of type 'deconvoy.nobody'" in said(), "it is refused")
    check_same_worker_goes_on(celery, client, job, said)
    assert not trap.exists()
    assert errors_in(client) == errors_before


def test_a_message_that_asks_for_what_may_not_be_does_nothing(
    celery: psutil.Process, said: Callable[[], str], client: redis.Redis, job: JobHandle, tmp_path: Path
) -> None:
    wait_until(lambda: job.status().finished, "the job is finished")
    before = files_below(tmp_path / "jobs")
    bodies = hostile_bodies(Path(job.place))
    for body in bodies.values():
        client.lpush(queue.list_key(0), listed(envelope(body_of(body))))

    wait_until(lambda: said().count("succeeded in") >= len(bodies) + 2, "all are worked on")
    assert files_below(tmp_path / "jobs") == before
    assert "forged" not in [line.split()[0] for line in said().splitlines() if line]
    assert max(map(len, said().splitlines())) < 1000
    assert "Traceback" not in said()
    # What is published stands under ids that are ids, and none of it under the id of the good job.
    assert queue.errors_key(job.id) not in errors_in(client)
    check_same_worker_goes_on(celery, client, job, said)


def test_a_job_file_that_is_none_is_refused(
    celery: psutil.Process, said: Callable[[], str], client: redis.Redis, tmp_path: Path
) -> None:
    texts = ["{", '{"format_version": 2}', '{"id": "../../x"}', "[" * 10_000, "\0"]
    for number, text in enumerate(texts):
        place = tmp_path / "jobs" / f"a-job-{number}"
        place.mkdir(parents=True)
        (place / keys.JOB).write_text(text)
        client.lpush(queue.list_key(0), listed(envelope(body_of(shard_message(place)))))
    refusal = "is not of format version 1"
    wait_until(lambda: said().count(refusal) >= len(texts), "all are refused")
    assert files_below(tmp_path / "jobs").keys() == {
        str(tmp_path / "jobs" / f"a-job-{number}" / keys.JOB) for number in range(len(texts))
    }
    assert "Traceback" not in said()
    assert celery.is_running()


@at_length
def test_garbage_where_deaths_and_holders_are_kept_costs_no_worker_its_life(
    celery: psutil.Process, said: Callable[[], str], client: redis.Redis, job: JobHandle
) -> None:
    wait_until(lambda: job.status().finished, "the job is finished")
    client.hset(queue.HOLDERS_KEY, "a tag", "a worker")
    client.hset(queue.deliveries_key("a-job"), mapping={"0": str(MOST_LOSSES), "0:by": "x"})
    check_same_worker_goes_on(celery, client, job, said)


def check_same_worker_goes_on(
    celery: psutil.Process, client: redis.Redis, job: JobHandle, said: Callable[[], str]
) -> None:
    """The page is made once more by the process that has met it all, and nothing is left in the queue."""
    job.store.delete(keys.REPORT)
    assert job.resume() == 1
    wait_until(lambda: job.status().finished, "the same worker does the next job")
    assert celery.is_running()
    assert "starts again" not in said()
    wait_until(lambda: not client.hlen(queue.UNACKED_KEY), "all messages are acknowledged")
    assert [client.llen(key) for key in queue.list_keys()] == [0] * 4


def files_below(folder: Path) -> dict[str, str]:
    """Every file with its content's length and time."""
    return {
        str(path): json.dumps([path.stat().st_size, path.stat().st_mtime_ns])
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
