"""Processes that are killed, and told to end, in the middle of a shard."""

from __future__ import annotations

import signal

import pytest

from tests.chaos.conftest import finish
from tests.chaos.convoy import N_IMAGES, Convoy, Outcome
from tests.chaos.faults import sitecustomize as faults
from tests.length import at_length
from worker.contract import queue

pytestmark = [pytest.mark.chaos, pytest.mark.integration]


@at_length
def test_a_computing_process_that_is_killed(convoy: Convoy, undisturbed: Outcome, name: str) -> None:
    before = len(convoy.projected())
    handle = convoy.submit(name)
    convoy.wait_for_images(8, before)
    assert convoy.the_worker().kill_computing()
    finish(convoy, handle, undisturbed)
    assert len(convoy.projected()) - before > N_IMAGES


@at_length
def test_a_celery_worker_that_is_killed(convoy: Convoy, undisturbed: Outcome, name: str) -> None:
    before = len(convoy.projected())
    handle = convoy.submit(name)
    convoy.wait_for_images(8, before)
    convoy.the_worker().kill_celery()
    finish(convoy, handle, undisturbed)


def test_a_machine_that_dies(convoy: Convoy, undisturbed: Outcome, name: str) -> None:
    before = len(convoy.projected())
    handle = convoy.submit(name)
    convoy.wait_for_images(8, before)
    convoy.the_worker().kill_all()
    convoy.the_worker()
    finish(convoy, handle, undisturbed)


@at_length
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGQUIT])
def test_a_worker_that_is_told_to_end_gives_its_shard_back_at_once(
    convoy: Convoy, undisturbed: Outcome, name: str, signum: signal.Signals
) -> None:
    before = len(convoy.projected())
    handle = convoy.submit(name)
    convoy.wait_for_images(8, before)
    worker = convoy.the_worker()
    worker.launcher.send_signal(signum)
    assert worker.launcher.wait(30) == 0
    # Nothing has to expire: the messages wait, and no death is held against the shard.
    assert convoy.client.hlen(queue.UNACKED_KEY) == 0
    assert sum(convoy.client.llen(key) for key in queue.list_keys()) == len(handle.missing_shards())
    assert convoy.client.hgetall(queue.deliveries_key(handle.id)) == {}
    convoy.the_worker()
    finish(convoy, handle, undisturbed)


@at_length
def test_a_process_that_dies_between_pictures_and_record(
    convoy: Convoy, undisturbed: Outcome, name: str
) -> None:
    convoy.the_worker()
    (convoy.folder / faults.DIE_BEFORE_RECORD).touch()
    before = len(convoy.projected())
    handle = convoy.submit(name)
    finish(convoy, handle, undisturbed)
    assert not (convoy.folder / faults.DIE_BEFORE_RECORD).exists()
    assert len(convoy.projected()) - before == N_IMAGES + 6
