"""A cluster to break: Redis, S3 behind a proxy, workers, and the same small job again and again."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import redis
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from producer.jobs import JobHandle, submit
from tests.chaos.faults import sitecustomize as faults
from tests.cluster import end_with_children, family, start_redis, wait_until
from tests.fault_proxy import FaultProxy
from worker.contract import queue
from worker.contract.settings import Settings
from worker.storage import open_store

SPECS = ("pool1:max", "pool2:all")
N_IMAGES = 18
SHARD_SIZE = 6
SECONDS_AN_IMAGE = 0.08
LEASE_S = 8
"""Long enough that a living worker on a busy machine is not taken for dead: then a shard is done twice."""
TIME_LIMIT_S = 60

Row = dict[str, Any]

"""Not in `make test`, where the tests without this mark are the short form."""


def picture(number: int, fault: bytes = b"") -> bytes:
    """A PNG of noise; `fault` is what it does to the process that decodes it."""
    random = np.random.default_rng(number)
    pixels_HWC = random.integers(0, 256, (33 + number % 31, 40, 3), dtype=np.uint8)
    text = PngInfo()
    text.add_text("Comment", fault.decode())
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


@dataclass(frozen=True)
class Outcome:
    """What a job has left: its rows without what no two runs share, and its pictures by key."""

    rows: list[Row]
    pictures: dict[str, bytes]

    @classmethod
    def of(cls, handle: JobHandle) -> Outcome:
        # Tests cut the job into shards as they need it.
        rows = [{**row, "seconds": None, "shard": None} for row in handle.index().to_pylist()]
        found = [key for prefix in ("recon/", "inputs/") for key in handle.store.list(prefix)]
        return cls(rows, {key: handle.store.read(key) for key in found})

    def check(self, undisturbed: Outcome, spoilt: Sequence[str] = ()) -> None:
        """Each image has one row for each spec; all but the images `spoilt` are as they should be."""
        expected = Counter((row["image"], row["spec"]) for row in undisturbed.rows)
        assert set(expected.values()) == {1}
        assert Counter((row["image"], row["spec"]) for row in self.rows) == expected
        assert [row for row in self.rows if row["image"] not in spoilt] == [
            row for row in undisturbed.rows if row["image"] not in spoilt
        ]
        for row in self.rows:
            if row["image"] not in spoilt:
                assert row["status"] == "ok"
                assert hashlib.sha256(self.pictures[row["key"]]).hexdigest() == row["sha256"]
        lost = [row for row in undisturbed.rows if row["image"] in spoilt]
        without = {row["key"] for row in lost} | {row["input_key"] for row in lost}
        assert self.pictures == {
            key: data for key, data in undisturbed.pictures.items() if key not in without
        }


class Worker:
    """`deconvoy worker`: the launcher, the Celery worker that it keeps, and the process that computes."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("w") as file:
            self.launcher = subprocess.Popen(
                [sys.executable, "-P", "-m", "producer.cli", "worker", "--gpus", "none"],
                env=environment,
                stdout=file,
                stderr=file,
                text=True,
            )

    def said(self, words: str) -> bool:
        return words in self.log.read_text()

    def celery(self) -> psutil.Process | None:
        """The Celery worker, if it runs."""
        found = [process for process in family(self.launcher.pid)[1:] if _runs(process, "worker.app")]
        return found[0] if found else None

    def computing(self) -> psutil.Process | None:
        """The child of the Celery worker that works on shards, if it runs."""
        celery = self.celery()
        children = family(celery.pid)[1:] if celery else []
        found = [process for process in children if _runs(process, "billiard.spawn")]
        return found[0] if found else None

    def kill_computing(self) -> bool:
        """SIGKILL to the process that works on shards; False if there is none just now."""
        process = self.computing()
        if process is None:
            return False
        _kill(process)
        return True

    def kill_celery(self) -> None:
        """SIGKILL to the Celery worker alone."""
        process = self.celery()
        assert process is not None
        _kill(process)

    def kill_all(self) -> None:
        """SIGKILL to everything, as when the machine dies."""
        members = family(self.launcher.pid)
        for member in members:
            _kill(member)
        self.launcher.wait()
        psutil.wait_procs(members, 10)

    def end(self) -> None:
        end_with_children(self.launcher)


def _runs(process: psutil.Process, what: str) -> bool:
    try:
        return any(what in argument for argument in process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)


class Convoy:
    """One Redis, one S3 behind `proxy`, and workers that can be ended and started."""

    def __init__(self, folder: Path, proxy: FaultProxy, bucket: str) -> None:
        self.folder = folder
        self.proxy = proxy
        self.bucket = bucket
        self.redis_url = f"unix://{folder / 'redis.sock'}"
        self.settings = Settings(redis_url=self.redis_url, shard_time_limit_s=TIME_LIMIT_S)
        self.redis = self._start_redis()
        self.client = redis.Redis.from_url(self.redis_url, decode_responses=True)
        self.workers: list[Worker] = []
        self._numbers = itertools.count()
        self.set_pace(SECONDS_AN_IMAGE)
        for number in range(N_IMAGES):
            self.put_image(number)

    def _start_redis(self) -> subprocess.Popen[bytes]:
        return start_redis(self.folder, "--appendonly", "yes", "--appendfsync", "always")

    def put_image(self, number: int, fault: bytes = b"", prefix: str = "photos") -> str:
        """Store an image as it is in the undisturbed job, but for what it does; returns its URI."""
        store = open_store(f"s3://{self.bucket}/{prefix}")
        key = f"{number:03d}.png"
        store.write(key, picture(number, fault))
        return f"{store.place}/{key}"

    def set_pace(self, seconds_an_image: float) -> None:
        part = self.folder / "pace"
        part.write_text(str(seconds_an_image))
        part.replace(self.folder / faults.SECONDS_AN_IMAGE)

    def start_worker(self, **environment: str) -> Worker:
        worker = Worker(
            {
                **os.environ,
                "PYTHONPATH": str(Path(faults.__file__).parent),
                "CHAOS_FOLDER": str(self.folder),
                "CUDA_VISIBLE_DEVICES": "",
                "DECONVOY_REDIS_URL": self.redis_url,
                "DECONVOY_LEASE_S": str(LEASE_S),
                "DECONVOY_SHARD_TIME_LIMIT_S": str(TIME_LIMIT_S),
                "DECONVOY_SHUTDOWN_S": "0",
                **environment,
            },
            self.folder / f"worker-{next(self._numbers)}.log",
        )
        self.workers.append(worker)
        return worker

    def the_worker(self) -> Worker:
        """The one worker that there is to be."""
        for worker in [worker for worker in self.workers if worker.launcher.poll() is not None]:
            self.workers.remove(worker)
        return self.workers[0] if self.workers else self.start_worker()

    def submit(self, name: str, prefix: str = "photos", **options: Any) -> JobHandle:
        return submit(
            f"s3://{self.bucket}/{prefix}",
            **{
                "out": f"s3://{self.bucket}/jobs",
                "settings": self.settings,
                "name": name,
                "weights": "random:0",
                "specs": SPECS,
                "size_px": 32,
                "shard_size": SHARD_SIZE,
                "batch_size": 1,
                **options,
            },
        )

    def projected(self) -> list[str]:
        """Keys of the images that the network has done, ever."""
        return [key for _, key in self._projections()]

    def projectors(self) -> list[str]:
        """Likewise the processes that have done them."""
        return [process for process, _ in self._projections()]

    def _projections(self) -> list[tuple[str, str]]:
        file = self.folder / faults.PROJECTED
        lines = file.read_text().splitlines() if file.exists() else []
        return [(process, key) for process, _, key in (line.partition(" ") for line in lines)]

    def wait_for_images(self, n_images: int, since: int) -> None:
        """Wait until the network has done so many images more than `since`."""
        wait_until(lambda: len(self.projected()) >= since + n_images, f"{n_images} images are done")

    @contextmanager
    def redis_away(self) -> Iterator[None]:
        """SIGKILL, and at the end a new one from what the first has written down."""
        self.redis.kill()
        self.redis.wait()
        try:
            yield
        finally:
            self.redis = self._start_redis()

    def stop_redis(self, seconds: float) -> None:
        """SIGSTOP for a while: connections stand, and nothing is answered."""
        self.redis.send_signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            self.redis.send_signal(signal.SIGCONT)

    def check_queue_is_empty(self, job: str) -> None:
        """No message is left, waiting or held, and nothing is held against a shard."""
        wait_until(lambda: not self.client.hlen(queue.UNACKED_KEY), "all messages are acknowledged", 30)
        assert [self.client.llen(key) for key in queue.list_keys()] == [0] * 4
        assert self.client.hgetall(queue.deliveries_key(job)) == {}

    def close(self) -> None:
        for worker in self.workers:
            worker.end()
        self.client.close()
        self.redis.send_signal(signal.SIGCONT)
        self.redis.terminate()
        self.redis.wait()
