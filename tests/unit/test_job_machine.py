"""Nothing of a job is lost and nothing comes twice, whatever happens in whatever order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.cluster import redis_server
from tests.unit.job_machine import LEASE_S, N_IMAGES, JobMachine
from tests.unit.standin import noise_images
from worker.fleet.leases import Leases


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[JobMachine]]:
    """The machine, on a Redis and images of the test's own."""
    images = {str(path): path.read_bytes() for path in noise_images(tmp_path, [(40, 40)] * N_IMAGES)}
    with redis_server(tmp_path) as url:

        class Machine(JobMachine):
            def __init__(self) -> None:
                super().__init__(url, images, monkeypatch)

        yield Machine


@pytest.mark.timeout(600)
def test_nothing_is_lost_and_nothing_comes_twice(machine: type[JobMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


def test_a_shard_that_is_just_dropped_when_its_job_is_resumed_comes_again(
    machine: Callable[[], JobMachine],
) -> None:
    job = machine()
    job.submit("normal")
    job.cancel()
    job.take_a_message()
    [worker] = job.workers
    while worker.where != "asked":
        job.step(worker)
    job.resume("normal")
    job.teardown()


def test_a_late_message_of_an_earlier_attempt_does_not_stand_for_the_retry(
    machine: Callable[[], JobMachine],
) -> None:
    job = machine()
    bad = min(job.images)
    job.broken = {bad}
    Path(bad).write_bytes(b"broken")
    job.submit("normal")
    job.take_a_message()
    job.step(job.workers[0])
    job.kill(job.workers[0])
    job.notice_the_dead()
    job.take_a_message()
    [first] = job.workers
    Leases(job.client, first.tag, LEASE_S).end()
    job.notice_the_dead()
    job.take_a_message()
    late = job.workers[1]
    job.step(late)
    while first.alive:
        job.step(first)
    job.leave(first)
    while not job.finished:
        job.take_a_message()
        while job.workers[1].alive:
            job.step(job.workers[1])
        job.leave(job.workers[1])
    assert late.message.attempt == first.message.attempt == 0
    job.broken = set()
    Path(bad).write_bytes(job.images[bad])
    job.resume_failed()
    job.teardown()
    assert set(job.statuses.values()) == {"ok"}
