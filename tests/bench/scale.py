"""Jobs at scale: what a submission takes, what the queue adds to a shard, and how long a status takes.

Redis, Celery, the store and the commands are real. Simulated are the networks alone: see `simulated`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from producer.jobs import JobHandle, closing, open_job, submit
from tests.bench.simulated import Sleep, image_name
from tests.cluster import end_with_children, redis_server, wait_until
from worker import names
from worker.contract import keys, queue
from worker.contract.settings import Settings

_REPOSITORY = Path(__file__).parents[2]
_START_TIMEOUT_S = 600.0
_WATCHED = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
took_s = time.perf_counter() - started
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([took_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
"""
"""Runs a command from a process that is small itself: a child's peak begins with its parent's memory."""


@dataclass(frozen=True)
class Size:
    """How much is measured: `images` of the submission, `shards` of the job whose status is asked for,
    `workers` that sleep `shard_s` seconds for each of `shards_each` shards.
    """

    images: int = 1_000_000
    shards: int = 10_000
    workers: int = 32
    shards_each: int = 8
    shard_s: float = 4.0


@dataclass(frozen=True)
class Figure:
    """One number, and what it may be: `most` or `least`; neither: it is only stated."""

    name: str
    value: float
    unit: str
    most: float | None = None
    least: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it is within its limit."""
        return (self.most is None or self.value <= self.most) and (
            self.least is None or self.value >= self.least
        )

    def line(self) -> str:
        """For a table."""
        limits = ((">=", self.least), ("<=", self.most))
        limit = "".join(f"{sign} {value:g}" for sign, value in limits if value is not None)
        return f"{self.name:58} {self.value:10.3f} {self.unit:9} {limit}{'' if self.holds else '  MISSED'}"


@dataclass(frozen=True)
class Throughput:
    """How `n_workers` got through their shards of `shard_s` seconds each, all of them busy all the time."""

    n_workers: int
    n_shards: int
    shard_s: float
    wall_s: float

    @property
    def queue_s(self) -> float:
        """What a shard costs a worker beside the sleep."""
        return self.wall_s * self.n_workers / self.n_shards - self.shard_s

    @property
    def shards_a_second(self) -> float:
        return self.n_shards / self.wall_s


def figures(size: Size) -> Iterator[Figure]:
    """All numbers, each group when it is measured."""
    with tempfile.TemporaryDirectory(prefix="dv-", dir="/tmp") as folder:
        yield from submission(Path(folder), size.images)
    with tempfile.TemporaryDirectory(prefix="dv-", dir="/tmp") as folder:
        yield from status(Path(folder), size.shards)
    with tempfile.TemporaryDirectory(prefix="dv-", dir="/tmp") as folder:
        yield from scaling(Path(folder), size)


def submission(folder: Path, n_images: int) -> Iterator[Figure]:
    """`deconvoy submit` of a manifest with so many lines, into a folder."""
    manifest = folder / "manifest.txt"
    with manifest.open("w") as lines:
        lines.writelines(
            f"/data/train/n{number // 1000:08d}/{number:08d}.JPEG\n" for number in range(n_images)
        )
    with _redis(folder) as (url, client):
        before = client.info("memory")["used_memory"]
        wall_s, cpu_s, peak_kib = _watch(
            url, "submit", str(manifest), "--out", str(folder / "out"), "--weights", "random:0"
        )
        redis_bytes = client.info("memory")["used_memory"] - before
        n_messages = sum(client.llen(key) for key in queue.list_keys())
    what = f"submit {n_images:,} lines"
    yield Figure(f"{what}: wall time", wall_s, "s", most=60)
    yield Figure(f"{what}: CPU time", cpu_s, "s")
    yield Figure(f"{what}: peak memory", peak_kib * 1024 / 1e6, "MB", most=250)
    yield Figure(f"{what}: memory of Redis", redis_bytes / 1e6, "MB", most=20)
    yield Figure(f"{what}: messages", n_messages, "")


def status(folder: Path, n_shards: int) -> Iterator[Figure]:
    """The status of a job of so many shards, all but one done, then all: as a call and as a command."""
    manifest = folder / "manifest.txt"
    manifest.write_text("".join(f"/data/{number}.png\n" for number in range(n_shards)))
    with _redis(folder) as (url, client):
        settings = Settings(redis_url=url)
        with closing(
            submit(
                str(manifest), out=str(folder / "out"), settings=settings, weights="random:0", shard_size=1
            )
        ) as handle:
            client.hset(queue.progress_key(handle.id), mapping={str(n): "1/0" for n in range(n_shards)})
            for shard in range(n_shards - 1):
                handle.store.write(keys.shard_key(shard), b"")
            yield from _status(handle, url, "unfinished")
            handle.store.write(keys.shard_key(n_shards - 1), b"")
            summary = {"n_images": n_shards, "n_failed": 0, "stages": {}, "slowest_stage": None}
            handle.store.write(keys.SUMMARY, json.dumps({**summary, "resources": {}}).encode())
            handle.store.write(keys.REPORT, b"")
            yield from _status(handle, url, "finished")


def _status(handle: JobHandle, url: str, state: str) -> Iterator[Figure]:
    def ask() -> None:
        with closing(open_job(handle.place, Settings(redis_url=url))) as opened:
            found = opened.status()
        if found.state != state:
            raise AssertionError(f"the status is {found.state}, not {state}")

    what = f"status, {handle.job.n_shards:,} shards, {state}"
    yield Figure(f"{what}: call", min(_seconds(ask) for _ in range(3)), "s", most=1)
    wall_s, _, _ = min(_watch(url, "status", handle.place, "--json") for _ in range(3))
    yield Figure(f"{what}: command", wall_s, "s", most=1)


def scaling(folder: Path, size: Size) -> Iterator[Figure]:
    """One sleeping worker, then many on the same queue, each with the same number of shards."""
    with _redis(folder) as (url, _), ExitStack() as ending:
        throughputs = []
        for n_workers in (1, size.workers):
            convoy = Convoy(folder / f"{n_workers}", url)
            ending.callback(convoy.end)
            convoy.start(n_workers)
            throughputs.append(convoy.throughput(size.shards_each, size.shard_s))
            convoy.end()
    one, many = throughputs
    shards = f"shards of {size.shard_s:g} s"
    for throughput in throughputs:
        what = f"{throughput.n_workers} sleeping workers, {shards}"
        yield Figure(f"{what}: rate", throughput.shards_a_second, "shards/s")
        yield Figure(f"{what}: queue, a shard", throughput.queue_s * 1e3, "ms")
    linear = one.shards_a_second * size.workers
    yield Figure(f"{size.workers} against 1: of linear", many.shards_a_second / linear, "", least=0.95)


class Convoy:
    """Sleeping workers on one Redis, and the jobs that they get. Everything lies in `folder`."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        folder.mkdir()
        self._folder = folder
        self._settings = Settings(redis_url=redis_url)
        self._workers: list[subprocess.Popen[str]] = []

    def start(self, n_workers: int) -> None:
        """Start workers and wait until each of them has done a shard: what comes then meets them warm."""
        for number in range(n_workers):
            name = names.new_name(f"asleep{number}")
            with (self._folder / f"{number}.log").open("w") as log:
                self._workers.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "tests.bench.simulated"],
                        cwd=_REPOSITORY,
                        env={
                            **os.environ,
                            "DECONVOY_REDIS_URL": str(self._settings.redis_url),
                            names.VARIABLE: name,
                        },
                        stdout=log,
                        stderr=log,
                        text=True,
                    )
                )
        warm: set[str] = set()
        for attempt in range(100):
            # Long enough for others to begin meanwhile: one worker must not take all.
            sleeps = self._work(f"warm-{attempt}", n_workers, 1.0)
            warm |= {sleep["worker"] for sleep in sleeps}
            if len(warm) == n_workers:
                return
        raise AssertionError(f"only {len(warm)} of {n_workers} workers work: see {self._folder}")

    def throughput(self, shards_each: int, shard_s: float) -> Throughput:
        """Let them work; timed from the first message to the last record."""
        n_workers = len(self._workers)
        started = time.time()
        sleeps = self._work("measured", n_workers * shards_each, shard_s)
        return Throughput(n_workers, len(sleeps), shard_s, max(sleep["ended"] for sleep in sleeps) - started)

    def end(self) -> None:
        """End the workers, and all that they have started."""
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            end_with_children(worker)
        self._workers.clear()

    def _work(self, name: str, n_shards: int, shard_s: float) -> Sequence[Sleep]:
        manifest = self._folder / f"{name}.txt"
        manifest.write_text("".join(f"{image_name(number, shard_s)}\n" for number in range(n_shards)))
        with closing(
            submit(
                str(manifest),
                out=str(self._folder / "out"),
                settings=self._settings,
                weights="random:0",
                shard_size=1,
                name=name,
            )
        ) as handle:
            store, job = handle.store, handle.job
            wait_until(lambda: store.exists(keys.REPORT), f"job {name} is done", _START_TIMEOUT_S)
        return [json.loads(store.read(keys.shard_key(shard))) for shard in range(job.n_shards)]


@contextmanager
def _redis(folder: Path) -> Iterator[tuple[str, redis.Redis]]:
    with redis_server(folder) as url, redis.Redis.from_url(url, decode_responses=True) as client:
        yield url, client


def _watch(redis_url: str, *arguments: str) -> tuple[float, float, int]:
    """Run `deconvoy`; wall and CPU time in seconds, and its peak memory in KiB."""
    command = [sys.executable, "-P", "-m", "producer.cli", *arguments]
    watched = subprocess.run(
        [sys.executable, "-c", _WATCHED, *command],
        env={**os.environ, "DECONVOY_REDIS_URL": redis_url},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    wall_s, cpu_s, peak_kib = json.loads(watched.stdout)
    return wall_s, cpu_s, peak_kib


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
