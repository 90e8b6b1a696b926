"""submit, worker and status, as processes of their own that meet in a real Redis and a folder."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import psutil
import pytest
import redis
from celery import Celery

from producer import open_job
from producer.jobs import submit
from tests.cluster import TIMEOUT_S, Deconvoy, wait_until
from tests.length import at_length
from worker.contract import queue
from worker.contract.errors import JobError
from worker.contract.settings import Settings

pytestmark = pytest.mark.integration

SMALL = ("--weights", "random:0", "--model", "vgg11", "--size", "64", "--spec", "pool2:max")


def publish(redis_url: str, *bodies: list[object], task: str = queue.TASK_SHARD) -> None:
    app = Celery(broker=queue.celery_url(redis_url), set_as_current=False)
    app.conf.update(queue.shared_config(900))
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        for body in bodies:
            app.send_task(task, args=body, queue=queue.QUEUE, producer=producer)


def test_what_is_submitted_is_done_by_a_worker(
    deconvoy: Deconvoy, redis_url: str, worker: subprocess.Popen[str], photos: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    submitted = deconvoy("submit", str(photos), "--out", out, *SMALL, DECONVOY_REDIS_URL=redis_url)
    assert submitted.returncode == 0, submitted.stderr
    job_id = submitted.stdout.strip()

    watched = deconvoy("status", job_id, "--watch", "--json", DECONVOY_REDIS_URL=redis_url)

    assert watched.returncode == 0, watched.stderr
    status = json.loads(watched.stdout)
    assert (status["id"], status["state"], status["n_done"]) == (job_id, "finished", 3)
    handle = open_job(status["place"], Settings(redis_url=None))
    assert handle.index().column("status").to_pylist() == ["ok"] * 3
    assert "finished" in deconvoy("status", status["place"]).stdout


def test_a_worker_that_is_told_to_end_ends_with_its_children(
    worker: subprocess.Popen[str], tmp_path: Path
) -> None:
    wait_until(lambda: "ready" in (tmp_path / "worker.log").read_text(), "the worker is ready")
    children = psutil.Process(worker.pid).children(recursive=True)
    worker.terminate()

    assert worker.wait(TIMEOUT_S) == 0
    assert psutil.wait_procs(children, TIMEOUT_S)[1] == []


def test_the_same_submission_twice_is_one_job_and_enqueues_what_is_missing(
    redis_url: str, client: redis.Redis, photos: Path, tmp_path: Path
) -> None:
    settings = Settings(redis_url=redis_url)
    out = str(tmp_path / "out")

    first = submit(str(photos), out=out, settings=settings, weights="random:0", shard_size=1)
    waiting = queue.list_key(queue.PRIORITIES["normal"])
    assert client.llen(waiting) == 3
    first.store.write("shards/000001.parquet", b"")
    second = submit(str(photos), out=out, settings=settings, weights="random:0", shard_size=1)

    assert second.id == first.id
    assert client.llen(waiting) == 3
    client.delete(waiting)
    submit(str(photos), out=out, settings=settings, weights="random:0", shard_size=1)
    assert client.llen(waiting) == 2
    assert open_job(first.id, settings).place == first.place


@at_length
def test_hostile_messages_do_nothing_and_the_worker_lives(
    redis_url: str,
    client: redis.Redis,
    worker: subprocess.Popen[str],
    photos: Path,
    tmp_path: Path,
) -> None:
    good = {"format_version": 1, "job": "cats-0", "place": str(tmp_path / "nowhere"), "shard": 0}
    publish(
        redis_url,
        [],
        [None],
        ["import os"],
        [[[[]]]],
        [{**good, "format_version": 2}],
        [{**good, "extra": "rm -rf"}],
        [{**good, "shard": -1}],
        [{**good, "shard": "0"}],
        [good],
        [good, good, good],
    )
    publish(redis_url, [good], task="os.system")
    handle = submit(
        str(photos),
        out=str(tmp_path / "out"),
        settings=Settings(redis_url=redis_url),
        weights="random:0",
        model="vgg11",
        size_px=64,
        specs=["pool1:max"],
    )
    # A shard that the job does not have, in a message of the right form.
    publish(redis_url, [{**good, "job": handle.id, "place": handle.place, "shard": 999}])

    assert handle.wait().n_failed == 0

    log = (tmp_path / "worker.log").read_text()
    assert log.count("refused a message") == 9
    assert "Traceback" not in log
    assert worker.poll() is None
    assert not (tmp_path / "nowhere").exists()
    # Nothing is left to be delivered again.
    wait_until(lambda: not client.exists(f"{queue.KEY_PREFIX}unacked"), "all are acknowledged")


def test_a_job_that_cannot_be_done_says_why_to_those_who_wait(
    redis_url: str, worker: subprocess.Popen[str], photos: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "net.safetensors"
    weights.write_bytes(b"no weights at all")
    handle = submit(
        str(photos), out=str(tmp_path / "out"), settings=Settings(redis_url=redis_url), weights=str(weights)
    )

    with pytest.raises(JobError, match=r"net\.safetensors"):
        handle.wait()
    assert handle.status().state == "stopped"
    assert worker.poll() is None


def test_weights_that_changed_after_submission_are_refused(
    redis_url: str, worker: subprocess.Popen[str], photos: Path, tmp_path: Path
) -> None:
    handle = submit(
        str(photos), out=str(tmp_path / "out"), settings=Settings(redis_url=redis_url), weights="random:0"
    )
    job = handle.job.model_dump(mode="json")
    job["request"]["weights"]["sha256"] = "0" * 64
    (Path(handle.place) / "job.json").write_text(json.dumps(job))

    with pytest.raises(JobError, match=r"sha256 is .* but 000000000000"):
        handle.wait()


@at_length
def test_a_worker_process_that_is_killed_is_replaced_and_its_shard_done(
    redis_url: str, worker: subprocess.Popen[str], photos: Path, tmp_path: Path
) -> None:
    handle = submit(
        str(photos),
        out=str(tmp_path / "out"),
        settings=Settings(redis_url=redis_url),
        weights="random:0",
        shard_size=1,
    )
    wait_until(lambda: len(handle.missing_shards()) < 3, "the first shard is done")
    [celery] = psutil.Process(worker.pid).children()
    pool = [child for child in celery.children() if "semaphore_tracker" not in " ".join(child.cmdline())]
    for child in pool:
        child.kill()

    assert handle.wait().n_failed == 0
    assert handle.index().column("status").to_pylist() == ["ok"] * 30
