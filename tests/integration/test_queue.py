"""What the queue itself does, in a real Redis with real messages: turns, priorities, leases, deaths."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from celery import Celery

from producer.broker import Broker
from worker.contract import queue
from worker.contract.jobs import Job, Request
from worker.fleet.deliveries import CAREFUL_FROM_LOSSES, QUARANTINE_FROM_DEATHS, Deliveries
from worker.fleet.leases import Leases
from worker.storage.standing import Todo

pytestmark = pytest.mark.integration


@pytest.fixture
def broker(redis_url: str) -> Iterator[Broker]:
    broker = Broker(redis_url, 900)
    yield broker
    broker.close()


def job(name: str) -> Job:
    return Job(
        id=name,
        place=f"/nowhere/{name}",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        request=Request(),
        shard_size=1,
        n_images=100,
        n_shards=100,
        fingerprint="0" * 64,
    )


def enqueue(broker: Broker, name: str, n_shards: int, priority: queue.Priority = "normal") -> int:
    return broker.enqueue(job(name), f"/nowhere/{name}", Todo(0, [*range(n_shards)]), priority)


def waiting(client: redis.Redis) -> list[str]:
    """`job/shard` of all messages, in the order in which workers will take them."""
    messages = [json.loads(text) for key in queue.list_keys() for text in reversed(client.lrange(key, 0, -1))]
    return [f"{m['headers'][queue.JOB_HEADER]}/{m['headers'][queue.SHARD_HEADER]}" for m in messages]


def test_jobs_of_one_priority_take_turns_and_each_keeps_its_order(
    broker: Broker, client: redis.Redis
) -> None:
    enqueue(broker, "big", 5)
    enqueue(broker, "small", 2)
    assert waiting(client) == ["big/0", "small/0", "big/1", "small/1", "big/2", "big/3", "big/4"]
    enqueue(broker, "late", 1)
    assert waiting(client)[:3] == ["big/0", "small/0", "late/0"]
    assert len(waiting(client)) == 8


def test_a_higher_priority_comes_first(broker: Broker, client: redis.Redis) -> None:
    enqueue(broker, "slow", 2, "low")
    enqueue(broker, "usual", 2)
    enqueue(broker, "urgent", 2, "high")
    assert waiting(client) == ["urgent/0", "urgent/1", "usual/0", "usual/1", "slow/0", "slow/1"]


def test_what_waits_or_is_held_is_not_queued_again(broker: Broker, client: redis.Redis) -> None:
    assert enqueue(broker, "one", 3) == 3
    with Consumer(client) as consumer:
        assert consumer.take() == "one/0"
        assert broker.queued("one") == {0, 1, 2}
        assert enqueue(broker, "one", 5) == 2
        assert waiting(client) == [f"one/{shard}" for shard in range(1, 5)]
    assert broker.queued("other") == set()


def test_what_a_dead_worker_held_comes_back_and_what_a_living_one_holds_does_not(
    broker: Broker, client: redis.Redis
) -> None:
    enqueue(broker, "one", 2)
    living, dead = Leases(client, "living", 60), Leases(client, "dead", 60)
    with Consumer(client) as consumer:
        for leases, shard in ((living, 0), (dead, 1)):
            assert consumer.take() == f"one/{shard}"
            leases.hold(consumer.tag)
            leases.renew()
        assert living.restore_lost() == []
        assert client.ttl(queue.alive_key("dead")) > 0
        dead.end()
        assert living.restore_lost() == [], "only every so often"
        client.delete("deconvoy:restoring")
        assert living.restore_lost() == [("one", 1)]
        assert waiting(client) == ["one/1"]
        assert broker.queued("one") == {0, 1}
        assert consumer.take() == "one/1"


def test_of_two_messages_for_one_shard_only_the_dead_workers_comes_back(
    broker: Broker, client: redis.Redis
) -> None:
    living = Leases(client, "living", 60)
    with Consumer(client) as consumer:
        for leases in (living, Leases(client, "dead", 60)):
            broker.enqueue(job("one"), "/nowhere/one", Todo(0, [0]), "normal")
            assert consumer.take() == "one/0"
            leases.hold(consumer.tag)
            # As one that was sent twice: what the queue knows of the first is put out of sight.
            client.rename(queue.UNACKED_KEY, "aside") if leases is living else None
        (tag,) = client.hkeys(queue.UNACKED_KEY)
        (aside,) = client.hgetall("aside").items()
        client.hset(queue.UNACKED_KEY, *aside)
        living.renew()
        assert living.restore_lost() == [("one", 0)]
        assert tag not in client.hkeys(queue.UNACKED_KEY)
        assert client.hlen(queue.UNACKED_KEY) == 1


def test_who_held_what_has_ended_is_forgotten(client: redis.Redis) -> None:
    leases = Leases(client, "worker", 60)
    leases.hold("a tag that was acknowledged")
    assert leases.restore_lost() == []
    assert client.hlen(queue.HOLDERS_KEY) == 0


def test_a_message_that_nobody_began_comes_back_after_a_lease(broker: Broker, client: redis.Redis) -> None:
    enqueue(broker, "one", 2)
    with Consumer(client) as consumer:
        assert [consumer.take(), consumer.take()] == ["one/0", "one/1"]
        held = {tag: json.loads(value)[0] for tag, value in client.hgetall(queue.UNACKED_KEY).items()}
        old, _ = held
        # One was delivered longer ago than a lease, the other just now.
        client.zincrby(queue.UNACKED_INDEX_KEY, -61, old)
        (restored,) = Leases(client, "living", 60).restore_lost()
        assert restored == ("one", held[old]["headers"][queue.SHARD_HEADER])
        (message,) = [json.loads(text) for text in client.lrange(queue.list_key(3), 0, -1)]
        # The dead worker, should it live after all, acknowledges the message that it had, and not this one.
        assert message["properties"]["delivery_tag"] not in held
        assert message["body"] == held[old]["body"]


def test_a_message_that_came_back_keeps_its_priority(broker: Broker, client: redis.Redis) -> None:
    enqueue(broker, "slow", 2, "low")
    with Consumer(client) as consumer:
        assert consumer.take() == "slow/0"
        Leases(client, "dead", 60).hold(consumer.tag)
        assert Leases(client, "living", 60).restore_lost() == [("slow", 0)]
    enqueue(broker, "usual", 1)
    assert waiting(client) == ["usual/0", "slow/0", "slow/1"]


def test_an_image_that_kills_is_found_and_an_ordinary_end_forgets(client: redis.Redis) -> None:
    deliveries = Deliveries(client, "worker")
    for losses in range(CAREFUL_FROM_LOSSES):
        history = deliveries.begin("job", 7)
        assert (history.losses, history.careful) == (losses, False)
    for deaths in range(QUARANTINE_FROM_DEATHS):
        history = deliveries.begin("job", 7)
        assert history.careful
        assert history.deaths == ({12: deaths} if deaths else {})
        assert history.suspects == (frozenset({12}) if deaths else frozenset())
        assert not history.quarantined
        deliveries.on_image("job", 7, 11)
        deliveries.on_image("job", 7, 12)
    history = deliveries.begin("job", 7)
    assert history.quarantined == {12}
    assert not history.suspects
    deliveries.on_image("job", 7, 13)
    deliveries.on_image("job", 7, None)
    assert deliveries.begin("job", 7).deaths == {12: QUARANTINE_FROM_DEATHS}, "no image was under way"
    assert deliveries.begin("job", 8).losses == 0
    deliveries.end("job", 7)
    assert deliveries.begin("job", 7) == type(history)(0, {})
    assert 0 < client.ttl(queue.deliveries_key("job")) <= queue.LIVE_KEYS_TTL_S


def test_a_worker_that_is_told_to_stop_leaves_no_death_behind(client: redis.Redis) -> None:
    mine, other = Deliveries(client, "mine"), Deliveries(client, "other")
    mine.begin("one", 3)
    mine.begin("two", 4)
    other.begin("two", 5)
    mine.begin("three", 6)
    other.begin("three", 7)
    mine.begin("three", 7)
    mine.end_all()
    assert mine.begin("three", 7).losses == 1, "the other one's death stays known"
    assert mine.begin("one", 3).losses == 0
    assert mine.begin("two", 4).losses == 0
    assert mine.begin("two", 5).losses == 1


class Consumer:
    """Takes messages as a worker does, and holds them until its block ends."""

    def __init__(self, client: redis.Redis) -> None:
        path = client.connection_pool.connection_kwargs["path"]
        app = Celery("consumer", broker=f"redis+socket://{path}", set_as_current=False)
        app.conf.update(queue.shared_config(900))
        self._connection = app.connection_for_read()
        self._taken: list[tuple[str, str]] = []
        self.tag = ""

    def __enter__(self) -> Consumer:
        channel = self._connection.channel()
        # kombu's own loop, without its Consumer class: one look at the lists for each message.
        channel.basic_consume(queue.QUEUE, False, self._on_message, "consumer")
        return self

    def take(self) -> str:
        """`job/shard` of the next message; `tag` is its delivery tag."""
        while not self._taken:
            self._connection.drain_events(timeout=10)
        taken, self.tag = self._taken.pop(0)
        return taken

    def _on_message(self, message: Any) -> None:
        headers = message.headers
        taken = f"{headers[queue.JOB_HEADER]}/{headers[queue.SHARD_HEADER]}"
        self._taken.append((taken, message.delivery_tag))

    def __exit__(self, *_: object) -> None:
        self._connection.release()
