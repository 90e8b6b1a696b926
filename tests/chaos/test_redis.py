"""Redis dies and comes back, stands still, and forgets everything, in the middle of a job."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Length, finish
from tests.chaos.convoy import N_IMAGES, SHARD_SIZE, Convoy, Outcome
from tests.cluster import wait_until
from tests.length import at_length

pytestmark = [pytest.mark.chaos, pytest.mark.integration]


@at_length
def test_a_redis_that_is_killed_and_starts_again(convoy: Convoy, undisturbed: Outcome, name: str) -> None:
    before = len(convoy.projected())
    worker = convoy.the_worker()
    handle = convoy.submit(name)
    convoy.wait_for_images(8, before)
    with convoy.redis_away():
        pass
    finish(convoy, handle, undisturbed)
    assert worker.launcher.poll() is None


@at_length
def test_a_redis_that_stands_still(convoy: Convoy, undisturbed: Outcome, name: str, length: Length) -> None:
    before = len(convoy.projected())
    worker = convoy.the_worker()
    handle = convoy.submit(name)
    convoy.wait_for_images(8, before)
    convoy.stop_redis(length.redis_stands_still_s)
    finish(convoy, handle, undisturbed)
    assert worker.launcher.poll() is None


@at_length
def test_a_computing_process_that_is_killed_while_redis_is_away(
    convoy: Convoy, undisturbed: Outcome, name: str
) -> None:
    before = len(convoy.projected())
    worker = convoy.the_worker()
    handle = convoy.submit(name)
    convoy.wait_for_images(8, before)
    with convoy.redis_away():
        assert worker.kill_computing()
    finish(convoy, handle, undisturbed)


@at_length
def test_a_redis_that_is_wiped(convoy: Convoy, undisturbed: Outcome, name: str) -> None:
    before = len(convoy.projected())
    convoy.the_worker()
    handle = convoy.submit(name)
    wait_until(lambda: len(handle.missing_shards()) < N_IMAGES // SHARD_SIZE, "a shard is done")
    convoy.client.flushall()
    n_missing = len(handle.missing_shards())
    assert handle.resume() in (n_missing, n_missing - 1)
    finish(convoy, handle, undisturbed)
    # The shard that was under way when Redis forgot it, and none that had its record.
    assert len(convoy.projected()) - before <= N_IMAGES + SHARD_SIZE
