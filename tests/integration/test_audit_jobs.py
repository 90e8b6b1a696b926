"""Audits with a real Redis and a real worker: both passes, and what is lost in between them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import redis
from celery import Celery
from PIL import Image

from producer.audits import audit
from producer.jobs import JobHandle, closing, open_job
from tests.cluster import Deconvoy, wait_until
from tests.length import at_length
from worker.audit.second_pass import ask_for_atlas
from worker.contract import keys, publishing, queue
from worker.contract.settings import Settings
from worker.fleet import transport
from worker.fleet.live import Live
from worker.storage.standing import Todo, still_to_do

pytestmark = pytest.mark.integration

AUDIT = ("--layer", "pool1", "--layer", "pool2", "--weights", "random:0", "--resize", "native", "--top", "2")
TABLES = (keys.STATISTICS, keys.UNITS, keys.IMAGES, keys.ATLAS, keys.FINDINGS, keys.REPORT)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Five tiny images, the last of them broken."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        pixels_HWC = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels_HWC).save(folder / f"{number}.png")
    (folder / "4.png").write_bytes(b"broken")
    return folder


def submitted(images: Path, redis_url: str) -> JobHandle:
    return audit(
        str(images),
        out=str(images.parent / "out"),
        settings=Settings(redis_url=redis_url),
        layers=["pool1", "pool2"],
        weights="random:0",
        resize="native",
        shard_size=2,
    )


def tables_of(place: Path) -> dict[str, bytes]:
    return {key: (place / key).read_bytes() for key in TABLES}


@at_length
@pytest.mark.usefixtures("worker")
def test_an_audit_is_done_in_two_passes_and_goes_on_wherever_it_was_stopped(
    deconvoy: Deconvoy, redis_url: str, client: redis.Redis, images: Path, tmp_path: Path
) -> None:
    url = {"DECONVOY_REDIS_URL": redis_url}
    command = ["audit", str(images), "--out", str(tmp_path / "out"), *AUDIT, "--shard-size", "2", "--wait"]
    ended = deconvoy(*command, "--json", "--fail-on", "error", **url)
    assert ended.returncode == 4, ended.stderr
    assert "decode-fault" in ended.stderr
    status = json.loads(ended.stdout)
    assert (status["state"], status["n_images"], status["n_failed"]) == ("finished", 5, 1)
    # Three of the scan, and 64 and 128 units make one and two of the atlas.
    assert (status["n_shards"], status["n_shards_done"]) == (6, 6)
    place = Path(status["place"])
    tables = tables_of(place)
    assert deconvoy("jobs", **url).stdout == f"{status['id']}  {place}\n"
    assert deconvoy(*command, **url).returncode == 3

    with closing(open_job(str(place), Settings(redis_url=redis_url))) as handle:
        # As after a worker that died when it had merged: the message of its shard comes back.
        for key in (keys.shard_key(3), keys.shard_key(5), keys.REPORT, keys.FINDINGS):
            (place / key).unlink()
        assert handle.broker is not None
        assert handle.broker.enqueue(handle.job, str(place), Todo(0, [2]), "normal") == 1
        assert handle.wait().finished
        assert tables_of(place) == tables

        # As after a Redis that lost everything, and a merge that was never made.
        for key in (keys.shard_key(4), keys.STATISTICS, keys.REPORT, keys.plan_key(1)):
            (place / key).unlink()
        client.flushall()
        assert handle.status().state == "unfinished"
        handle.cancel()
        assert handle.resume() == 1
        assert handle.wait().finished
        assert tables_of(place) == tables

        # Only the page is missing: a shard that is done finishes the audit.
        (place / keys.REPORT).unlink()
        assert handle.resume() == 1
        assert handle.wait().finished
    assert tables_of(place) == tables
    log = (tmp_path / "worker.log").read_text()
    assert "refused" not in log
    assert "ERROR" not in log
    wait_until(lambda: not client.hlen(queue.UNACKED_KEY), "all messages are acknowledged")


def test_of_several_workers_that_end_a_scan_one_asks_for_the_atlas(
    redis_url: str, client: redis.Redis, images: Path
) -> None:
    app = Celery("worker", broker=queue.celery_url(redis_url), set_as_current=False)
    app.conf.update(queue.shared_config(900), task_time_limit=900)
    with closing(submitted(images, redis_url)) as handle, ThreadPoolExecutor(4) as workers:
        client.delete(*queue.list_keys())
        for shard in range(handle.job.n_shards):
            handle.store.write(keys.shard_key(shard), b"")
        todo = still_to_do(handle.store, handle.job)
        asking = partial(ask_for_atlas, handle.job, handle.place, todo, client, partial(publishing.send, app))
        for each in [workers.submit(asking) for _ in range(4)]:
            each.result()
        waiting = client.lrange(queue.list_key(queue.PRIORITIES["normal"]), 0, -1)
        assert len(waiting) == handle.job.n_atlas_shards == 3
        for message in waiting:
            transport.check_message(bytes(str(message), "utf-8"))
        assert handle.broker is not None
        assert handle.broker.queued(handle.id) == {3, 4, 5}
        assert handle.resume() == 0


def test_an_atlas_takes_turns_with_the_shards_of_another_job(
    redis_url: str, client: redis.Redis, images: Path
) -> None:
    app = Celery("worker", broker=queue.celery_url(redis_url), set_as_current=False)
    app.conf.update(queue.shared_config(900))
    with closing(submitted(images, redis_url)) as handle:
        key = queue.list_key(queue.PRIORITIES["normal"])
        other = publishing.messages_for("other", "/nowhere", 0, range(3))
        client.delete(key)
        publishing.send(app, other, queue.PRIORITIES["normal"])
        ask_for_atlas(handle.job, handle.place, Todo(0, [3, 4, 5]), client, partial(publishing.send, app))
        jobs = [json.loads(message)["headers"][queue.JOB_HEADER] for message in client.lrange(key, 0, -1)]
        assert [*reversed(jobs)] == ["other", handle.id] * 3


def test_a_scan_that_cannot_be_merged_stops_the_audit(
    redis_url: str, client: redis.Redis, images: Path
) -> None:
    with closing(submitted(images, redis_url)) as handle:
        for shard in range(handle.job.n_shards):
            handle.store.write(keys.shard_key(shard), b"")
        assert handle.status().state == "unfinished"
        Live(client).error(handle.id, "1", "JobError: its shards were computed with different weights")
        assert handle.status().state == "stopped"
        handle.store.write(keys.STATISTICS, b"")
        assert handle.status().state == "unfinished"
        Live(client).error(handle.id, "5", "JobError: the plan is gone")
        assert handle.status().state == "unfinished"
        for field in ("3", "4"):
            Live(client).error(handle.id, field, "JobError: the plan is gone")
        assert handle.status().state == "stopped"
