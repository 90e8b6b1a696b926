"""Messages that come twice, take too long, ask for an image that kills, or are of another version."""

from __future__ import annotations

import pytest
from celery import Celery

from producer.jobs import JobHandle
from tests.chaos.conftest import finish
from tests.chaos.convoy import N_IMAGES, Convoy, Outcome
from tests.chaos.faults import sitecustomize as faults
from tests.cluster import wait_until
from tests.length import at_length
from worker.contract import queue
from worker.contract.jobs import FORMAT_VERSION, ShardMessage

pytestmark = [pytest.mark.chaos, pytest.mark.integration]


def publish(convoy: Convoy, *bodies: object) -> None:
    app = Celery(broker=queue.celery_url(convoy.redis_url), set_as_current=False)
    app.conf.update(queue.shared_config(900))
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        for body in bodies:
            app.send_task(queue.TASK_SHARD, args=[body], queue=queue.QUEUE, producer=producer)


@at_length
def test_two_workers_on_the_same_shard_commit_it_once(
    convoy: Convoy, undisturbed: Outcome, name: str
) -> None:
    first, second = convoy.the_worker(), convoy.start_worker()
    try:
        wait_until(lambda: second.said("ready"), "the second worker is ready")
        before = len(convoy.projected())
        convoy.set_pace(0.5)
        handle = convoy.submit(name, shard_size=N_IMAGES)
        publish(convoy, message(handle, 0))
        wait_until(lambda: len(set(convoy.projectors()[before:])) == 2, "both work on the shard")
        convoy.set_pace(0)
        finish(convoy, handle, undisturbed)
        assert len(convoy.projected()) - before == 2 * N_IMAGES, "both have done all of it"
        assert first.launcher.poll() is None
    finally:
        second.end()


@at_length
def test_a_message_that_is_given_to_a_second_worker_while_the_first_lives(
    convoy: Convoy, undisturbed: Outcome, name: str
) -> None:
    """As when a shard takes longer than the visibility timeout."""
    first = convoy.the_worker()
    before = len(convoy.projected())
    # Longer in all than the pause between two looks at what has timed out.
    convoy.set_pace(1)
    handle = convoy.submit(name, shard_size=N_IMAGES)
    convoy.wait_for_images(1, before)
    second = convoy.start_worker()
    try:
        wait_until(lambda: second.said("ready"), "the second worker is ready")
        [tag] = convoy.client.zrange(queue.UNACKED_INDEX_KEY, 0, -1)
        convoy.client.zadd(queue.UNACKED_INDEX_KEY, {str(tag): 0})
        wait_until(lambda: len(set(convoy.projectors()[before:])) == 2, "both work on the shard")
        convoy.set_pace(0)
        finish(convoy, handle, undisturbed)
        assert first.launcher.poll() is None
    finally:
        second.end()


@at_length
def test_an_image_that_kills_is_left_alone_and_done_once_it_was_replaced(
    convoy: Convoy, undisturbed: Outcome, name: str
) -> None:
    image = convoy.put_image(8, faults.KILLS)
    try:
        convoy.the_worker()
        handle = convoy.submit(name)
        check_quarantine(convoy, handle, undisturbed, image)
    finally:
        convoy.put_image(8)
    before = len(convoy.projected())
    assert handle.resume(failed=True) == 1
    finish(convoy, handle, undisturbed)
    assert len(convoy.projected()) - before == 1


@at_length
def test_an_image_that_hangs_is_left_alone(convoy: Convoy, undisturbed: Outcome, name: str) -> None:
    convoy.the_worker().end()
    worker = convoy.start_worker(DECONVOY_SHARD_TIME_LIMIT_S="10")
    image = convoy.put_image(8, faults.HANGS)
    try:
        check_quarantine(convoy, convoy.submit(name), undisturbed, image)
        assert worker.said("Hard time limit")
    finally:
        convoy.put_image(8)
        worker.end()


def check_quarantine(convoy: Convoy, handle: JobHandle, undisturbed: Outcome, image: str) -> None:
    """The job ends, with this image alone missing and said to be quarantined."""
    assert handle.wait().n_failed == 1
    outcome = Outcome.of(handle)
    outcome.check(undisturbed, spoilt=[image])
    spoilt = [row for row in outcome.rows if row["image"] == image]
    assert {(row["status"], row["error"]) for row in spoilt} == {("quarantined", "ImageQuarantined")}
    [failure] = handle.failures()
    assert (failure.image, failure.status) == (image, "quarantined")
    convoy.check_queue_is_empty(handle.id)


@at_length
def test_a_message_of_a_later_version_is_refused_and_nothing_is_lost(
    convoy: Convoy, undisturbed: Outcome, name: str
) -> None:
    worker = convoy.the_worker()
    handle = convoy.submit(name)
    publish(convoy, {**message(handle, 0), "format_version": FORMAT_VERSION + 1, "new": True})
    finish(convoy, handle, undisturbed)
    wait_until(lambda: worker.said("refused a message"), "it is refused")
    assert worker.said("use the same deconvoy version for producer and workers")
    assert worker.launcher.poll() is None


def message(handle: JobHandle, shard: int) -> dict[str, object]:
    return ShardMessage(job=handle.id, place=handle.place, shard=shard).model_dump(mode="json")
