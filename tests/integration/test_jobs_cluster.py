"""Cancel, resume and priorities with a real worker: what is done in which order, and what is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from producer.jobs import JobHandle, closing, submit
from tests.cluster import Deconvoy, wait_until
from tests.length import at_length
from worker.contract import keys, queue
from worker.contract.settings import Settings

pytestmark = pytest.mark.integration

N_SHARDS = 10
N_CANCELLED = 60


class Jobs:
    """Submits jobs of one image a shard; a worker is started when it is asked for."""

    def __init__(
        self, deconvoy: Deconvoy, redis_url: str, photo: Path, folder: Path, ending: ExitStack
    ) -> None:
        self.settings = Settings(redis_url=redis_url)
        self._deconvoy = deconvoy
        self._photo = photo
        self._folder = folder
        self._ending = ending

    def submit(self, name: str, n_shards: int, priority: queue.Priority = "normal") -> JobHandle:
        images = self._folder / name
        images.mkdir(exist_ok=True)
        for number in range(n_shards):
            image = images / f"{number}{self._photo.suffix}"
            if not image.exists():
                shutil.copy(self._photo, image)
        handle = submit(
            str(images),
            out=str(self._folder / "out"),
            settings=self.settings,
            specs=["pool1:max"],
            weights="random:0",
            model="vgg11",
            size_px=64,
            shard_size=1,
            name=name,
            priority=priority,
        )
        return self._ending.enter_context(closing(handle))

    def start_worker(self) -> None:
        environment = {"DECONVOY_REDIS_URL": str(self.settings.redis_url)}
        log = self._folder / "worker.log"
        self._ending.enter_context(self._deconvoy.logging(log, "worker", "--gpus", "none", **environment))


@pytest.fixture
def jobs(deconvoy: Deconvoy, redis_url: str, photos: Path, tmp_path: Path) -> Iterator[Jobs]:
    with ExitStack() as ending:
        yield Jobs(deconvoy, redis_url, min(photos.iterdir()), tmp_path, ending)


def order_of(*handles: JobHandle) -> list[str]:
    """The names of the jobs, a time for each shard, in the order in which the records were written."""
    written = [
        ((Path(handle.place) / keys.shard_key(shard)).stat().st_mtime_ns, handle.id.rpartition("-")[0])
        for handle in handles
        for shard in range(handle.job.n_shards)
    ]
    return [name for _, name in sorted(written)]


def test_a_small_job_of_high_priority_does_not_wait_behind_a_large_one(jobs: Jobs) -> None:
    large = jobs.submit("large", N_SHARDS, priority="low")
    small = jobs.submit("small", 2, priority="high")
    jobs.start_worker()
    large.wait()
    assert order_of(large, small) == ["small"] * 2 + ["large"] * N_SHARDS


@at_length
def test_two_jobs_of_one_priority_take_turns(jobs: Jobs) -> None:
    first, second = jobs.submit("first", 4), jobs.submit("second", 4)
    jobs.start_worker()
    first.wait()
    second.wait()
    assert order_of(first, second) == ["first", "second"] * 4


@at_length
def test_a_cancelled_job_stops_within_a_shard_and_goes_on_where_it_was(
    jobs: Jobs, client: redis.Redis, deconvoy: Deconvoy
) -> None:
    handle = jobs.submit("pictures", N_CANCELLED)
    jobs.start_worker()
    wait_until(lambda: len(handle.missing_shards()) < N_CANCELLED, "a shard is done")
    assert deconvoy("cancel", handle.place).returncode == 0
    at_cancel = N_CANCELLED - len(handle.missing_shards())
    # Its messages are dropped, one after the other.
    wait_until(lambda: handle.broker is not None and not handle.broker.queued(handle.id), "all are dropped")
    done = {*range(N_CANCELLED)} - {*handle.missing_shards()}
    assert at_cancel <= len(done) <= at_cancel + 1
    before = {shard: (Path(handle.place) / keys.shard_key(shard)).stat().st_mtime_ns for shard in done}
    assert handle.status().state == "cancelled"

    url = {"DECONVOY_REDIS_URL": str(jobs.settings.redis_url)}
    resumed = deconvoy("resume", handle.id, **url)
    assert resumed.stderr == f"job {handle.id}: {N_CANCELLED - len(done)} shards enqueued\n"
    assert handle.wait().n_failed == 0
    for shard, written in before.items():
        assert (Path(handle.place) / keys.shard_key(shard)).stat().st_mtime_ns == written
    assert handle.index()["image"].to_pylist() == sorted(handle.index()["image"].to_pylist())
    assert handle.index().num_rows == N_CANCELLED
    assert not client.hlen(queue.UNACKED_KEY)


@at_length
def test_what_is_submitted_again_goes_on_though_it_was_cancelled(jobs: Jobs) -> None:
    jobs.submit("pictures", 3).cancel()
    handle = jobs.submit("pictures", 3)
    jobs.start_worker()
    assert handle.wait().n_done == 3


def test_only_what_failed_is_done_again(jobs: Jobs, deconvoy: Deconvoy, tmp_path: Path) -> None:
    handle = jobs.submit("pictures", 4)
    bad = sorted((tmp_path / "pictures").iterdir())[2]
    good = bad.read_bytes()
    bad.write_bytes(b"broken")
    jobs.start_worker()
    assert handle.wait().n_failed == 1
    records = [path.stat().st_mtime_ns for path in sorted((Path(handle.place) / "shards").iterdir())]

    bad.write_bytes(good)
    url = {"DECONVOY_REDIS_URL": str(jobs.settings.redis_url)}
    assert "1 shards enqueued" in deconvoy("resume", handle.id, "--failed", **url).stderr
    watched = deconvoy("status", handle.id, "--watch", "--json", **url)
    assert watched.returncode == 0, watched.stderr
    status = json.loads(watched.stdout)
    assert (status["state"], status["attempt"], status["n_failed"]) == ("finished", 1, 0)
    assert handle.index()["status"].to_pylist() == ["ok"] * 4
    assert [p.stat().st_mtime_ns for p in sorted((Path(handle.place) / "shards").iterdir())] == records


@at_length
def test_a_redis_that_forgot_everything_gets_the_rest_of_the_job_again(
    jobs: Jobs, client: redis.Redis
) -> None:
    handle = jobs.submit("pictures", 6)
    handle.store.write(keys.CANCELLED, b"{}")
    client.flushall()
    assert handle.resume() == 6
    assert handle.resume() == 0
    jobs.start_worker()
    assert handle.wait().n_done == 6
