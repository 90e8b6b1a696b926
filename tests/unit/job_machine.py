"""Submit, work, lose, resume, cancel, in any order: every image gets exactly one row for each spec.

The producer, the worker's runtime, what both keep in Redis, and a Redis are real. Celery is not there:
messages are published and taken here, as JSON. Workers stop between their steps (`stepped`).
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from producer.broker import Broker
from producer.jobs import JobHandle, submit
from tests.unit.stepped import GatedStore, SteppedDeliveries, SteppedRuntime, SteppedWorker
from worker.contract import keys, queue, records
from worker.contract.jobs import ShardMessage
from worker.contract.settings import Settings
from worker.fleet.deliveries import QUARANTINE_FROM_DEATHS
from worker.fleet.leases import Leases
from worker.storage import Store, open_store

SPECS = ("pool1:max", "pool2:all")
N_IMAGES, SHARD_SIZE = 5, 2
MOST_WORKERS = 3
LEASE_S = 60
PRIORITIES = st.sampled_from(["high", "normal", "low"])

Asked = tuple[int, int]
"""What a message asks for: shard and attempt."""


class JsonBroker(Broker):
    """The product's broker; its messages go as JSON into the lists that Celery would put them into."""

    def __init__(self, redis_url: str, shard_time_limit_s: int) -> None:
        super().__init__(redis_url, shard_time_limit_s)
        self.published: list[Asked] = []

    def _publish(self, messages: Iterable[ShardMessage], priority: int) -> None:
        for message in messages:
            headers = {
                queue.JOB_HEADER: message.job,
                queue.SHARD_HEADER: message.shard,
                queue.ATTEMPT_HEADER: message.attempt,
            }
            text = json.dumps(
                {
                    "body": json.dumps(message.model_dump(mode="json")),
                    "headers": headers,
                    "properties": {"priority": priority},
                }
            )
            self._client.lpush(queue.list_key(priority), text)
            self.published.append((message.shard, message.attempt))


class JobMachine(RuleBasedStateMachine):
    """One job. The model: of each image whether it is whole or kills, and what its last row has to say."""

    def __init__(self, redis_url: str, images: dict[str, bytes], patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.images = images
        for image, data in images.items():
            Path(image).write_bytes(data)
        self.client = redis.Redis.from_url(redis_url, decode_responses=True)
        self.client.flushall()
        self.settings = Settings(redis_url=redis_url)
        self.runtime = SteppedRuntime(self.settings, lambda *message: self.broker._publish(*message))
        self.runtime.replace_deliveries(SteppedDeliveries(self.client, ""))
        self.broker = JsonBroker(redis_url, self.settings.shard_time_limit_s)
        self.stores: dict[str, GatedStore] = {}
        for module in ("producer.jobs", "producer.submission", "worker.runtime"):
            patch.setattr(f"{module}.open_store", self.open_store)
        patch.setattr("producer.jobs.Broker", lambda *_: self.broker)

        self.handle: JobHandle | None = None
        self.workers: list[SteppedWorker] = []
        self.broken: set[str] = set()
        self.killers: set[str] = set()
        self.deaths: Counter[str] = Counter()
        self.statuses: dict[str, str] = {}
        self.promised = False
        """Whether the job comes to its end without anybody asking for it again."""

    def open_store(self, place: str) -> Store:
        if not place.startswith("memory:"):
            return open_store(place)
        return self.stores.setdefault(place, GatedStore(place, self.on_commit))

    # What users do.

    @rule(priority=PRIORITIES)
    def submit(self, priority: Any) -> None:
        before = self.asked_for()
        handle = submit(
            sorted(self.images),
            out="memory:/out",
            settings=self.settings,
            specs=SPECS,
            weights="random:0",
            size_px=32,
            shard_size=SHARD_SIZE,
            priority=priority,
        )
        assert self.handle is None or handle.job == self.handle.job
        self.handle = handle
        self.after_enqueueing(before)

    @precondition(lambda self: self.handle is not None)
    @rule(priority=PRIORITIES)
    def resume(self, priority: Any) -> None:
        before = self.asked_for()
        self.the_job.resume(priority=priority)
        self.after_enqueueing(before)

    # Not while somebody writes the index: see `compact`.
    @precondition(lambda self: self.finished and not any(w.where in ("index", "page") for w in self.workers))
    @rule()
    def resume_failed(self) -> None:
        before = self.asked_for()
        self.the_job.resume(failed=True)
        self.after_enqueueing(before)

    @precondition(lambda self: self.handle is not None)
    @rule()
    def cancel(self) -> None:
        self.the_job.cancel()
        self.promised = False

    @precondition(lambda self: self.nobody_works)
    @rule(data=st.data())
    def break_or_mend_an_image(self, data: st.DataObject) -> None:
        image = data.draw(st.sampled_from(sorted(self.images)))
        self.broken ^= {image}
        Path(image).write_bytes(b"broken" if image in self.broken else self.images[image])

    @precondition(lambda self: self.nobody_works)
    @rule(data=st.data())
    def make_or_heal_a_killer(self, data: st.DataObject) -> None:
        self.killers ^= {data.draw(st.sampled_from(sorted(self.images)))}

    # What befalls them.

    @rule()
    def lose_all_that_is_in_redis(self) -> None:
        self.client.flushall()
        self.promised = False

    @precondition(lambda self: len(self.workers) < MOST_WORKERS)
    @rule()
    def take_a_message(self) -> None:
        for key in queue.list_keys():
            text = self.client.rpop(key)
            if text is not None:
                message = json.loads(str(text))
                body = json.loads(message["body"])
                worker = SteppedWorker(self.runtime.work, str(uuid.uuid4()), body)
                self.client.hset(queue.UNACKED_KEY, worker.tag, json.dumps([message, "", ""]))
                self.client.zadd(queue.UNACKED_INDEX_KEY, {worker.tag: time.time()})
                leases = Leases(self.client, worker.tag, LEASE_S)
                leases.renew()
                leases.hold(worker.tag)
                self.workers.append(worker)
                return

    @precondition(lambda self: any(worker.alive for worker in self.workers))
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        self.step(data.draw(st.sampled_from([w for w in self.workers if w.alive])))

    @precondition(lambda self: any(worker.where == "ended" for worker in self.workers))
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        self.leave(data.draw(st.sampled_from([w for w in self.workers if w.where == "ended"])))

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        self.kill(data.draw(st.sampled_from(self.workers)))

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def be_taken_for_dead(self, data: st.DataObject) -> None:
        Leases(self.client, data.draw(st.sampled_from(self.workers)).tag, LEASE_S).end()

    @rule()
    def notice_the_dead(self) -> None:
        self.client.delete("deconvoy:restoring")
        Leases(self.client, "living", LEASE_S).restore_lost()

    # How a worker goes on.

    def step(self, worker: SteppedWorker) -> None:
        worker.step()
        scope = self.scope_of(worker.message.shard, worker.message.attempt)
        begins_with_one = worker.where == "image" and scope[worker.position] in self.killers
        has_done_all = worker.where == "record" and not worker.careful
        if begins_with_one or (has_done_all and self.killers.intersection(scope)):
            self.kill(worker)

    def kill(self, worker: SteppedWorker) -> None:
        if worker.where == "image":
            self.deaths[self.scope_of(worker.message.shard, worker.message.attempt)[worker.position]] += 1
        worker.kill()
        worker.join()
        Leases(self.client, worker.tag, LEASE_S).end()
        # Long enough ago that a message whose worker has said nothing is seen to be lost.
        self.client.zadd(queue.UNACKED_INDEX_KEY, {worker.tag: 1}, xx=True)
        self.workers.remove(worker)

    def leave(self, worker: SteppedWorker) -> None:
        worker.join()
        self.client.hdel(queue.UNACKED_KEY, worker.tag)
        self.client.zrem(queue.UNACKED_INDEX_KEY, worker.tag)
        self.workers.remove(worker)

    # What has to hold.

    def after_enqueueing(self, before: dict[str, list[Asked]]) -> None:
        """Nothing that waits is enqueued again, nor what is held, unless the holder may be dropping it."""
        published, self.broker.published = self.broker.published, []
        assert len(set(published)) == len(published)
        assert not set(published) & set(before["waiting"])
        if not before["cancelled"]:
            assert not set(published) & set(before["held"])
        self.promised = True

    def on_commit(self, key: str, data: bytes) -> None:
        """Each image of the record has one row for each spec, which says what the image deserves."""
        attempt, shard = _attempt_and_shard(key)
        rows = records.from_parquet(data, key).to_pylist()
        scope = self.scope_of(shard, attempt)
        assert [(row["image"], row["spec"]) for row in rows] == [(i, spec) for i in scope for spec in SPECS]
        for image in scope:
            [status] = {row["status"] for row in rows if row["image"] == image}
            assert status in self.deserved(image), image
            self.statuses[image] = status

    def deserved(self, image: str) -> Iterator[str]:
        if self.deaths[image] >= QUARANTINE_FROM_DEATHS:
            yield "quarantined"
        if image not in self.killers:
            yield "failed" if image in self.broken else "ok"

    @invariant()
    def records_stay(self) -> None:
        for store in self.stores.values():
            for key, data in store.records.items():
                assert store.read(key) == data

    @invariant()
    def the_status_adds_up(self) -> None:
        if self.handle is None:
            return
        status = self.handle.status()
        assert 0 <= status.n_done <= status.n_images == N_IMAGES
        assert 0 <= status.n_failed <= N_IMAGES
        assert 0 <= status.n_shards_done <= status.n_shards
        if status.finished:
            assert status.n_failed == sum(one != "ok" for one in self.statuses.values())

    @invariant()
    def a_finished_job_is_exact(self) -> None:
        if not self.finished:
            return
        index = self.the_job.index().to_pylist()
        images = sorted(self.images)
        assert [(row["image"], row["spec"]) for row in index] == [(i, spec) for i in images for spec in SPECS]
        assert all(row["status"] == self.statuses[row["image"]] for row in index)
        failed = [(image, self.statuses[image]) for image in images if self.statuses[image] != "ok"]
        assert [(failure.image, failure.status) for failure in self.the_job.failures()] == failed
        summary = json.loads(self.the_job.store.read(keys.SUMMARY))
        assert (summary["n_images"], summary["n_failed"]) == (N_IMAGES, len(failed))

    def teardown(self) -> None:
        """Everybody works on until nothing is left: then the job is finished, if that was promised."""
        try:
            if self.handle is not None:
                self.work_until_nothing_is_left()
                if not self.promised:
                    self.resume(None)
                    self.work_until_nothing_is_left()
                assert self.finished, self.handle.status()
                self.a_finished_job_is_exact()
        finally:
            for worker in [*self.workers]:
                worker.kill()
                worker.join()
            self.broker.close()
            self.client.close()

    def work_until_nothing_is_left(self) -> None:
        while True:
            self.notice_the_dead()
            if not self.workers:
                self.take_a_message()
            if not self.workers:
                return
            for worker in [*self.workers]:
                while worker in self.workers and worker.alive:
                    self.step(worker)
                if worker in self.workers:
                    self.leave(worker)

    # What is the case.

    @property
    def the_job(self) -> JobHandle:
        assert self.handle is not None
        return self.handle

    @property
    def finished(self) -> bool:
        return self.handle is not None and self.handle.status().finished

    @property
    def nobody_works(self) -> bool:
        return not any(worker.alive for worker in self.workers)

    def scope_of(self, shard: int, attempt: int) -> list[str]:
        """The images that an attempt at a shard is about, in order."""
        images = sorted(self.images)[shard * SHARD_SIZE : (shard + 1) * SHARD_SIZE]
        return [image for image in images if attempt == 0 or self.statuses[image] != "ok"]

    def asked_for(self) -> Any:
        waiting = [json.loads(text) for key in queue.list_keys() for text in self.client.lrange(key, 0, -1)]
        held = [json.loads(value)[0] for value in self.client.hvals(queue.UNACKED_KEY)]
        found: dict[str, Any] = defaultdict(list)
        for name, messages in (("waiting", waiting), ("held", held)):
            for message in messages:
                headers = message["headers"]
                found[name].append((headers[queue.SHARD_HEADER], headers[queue.ATTEMPT_HEADER]))
        found["cancelled"] = self.handle is not None and self.the_job.store.exists(keys.CANCELLED)
        return found


def _attempt_and_shard(key: str) -> Asked:
    """Of a record's key."""
    *_, folder, name = key.split("/")
    return int(folder) if folder.isdigit() else 0, int(name.removesuffix(".parquet"))
