"""A real Redis, real workers, and what they leave: no mock, no fixed port, no sleep for luck."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from producer.jobs import JobHandle, submit
from tests.cluster import Deconvoy, private_deconvoy, redis_server
from tests.photographs import photographs
from worker.contract.settings import Settings


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="dv-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def deconvoy(short_folder: Path) -> Deconvoy:
    return private_deconvoy(short_folder / "tmp")


@pytest.fixture
def redis_url(short_folder: Path) -> Iterator[str]:
    """A Redis of the test's own, on a socket."""
    with redis_server(short_folder) as url:
        yield url


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as connected:
        yield connected


@pytest.fixture
def worker(deconvoy: Deconvoy, redis_url: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`deconvoy worker` on the CPU; its log is at tmp_path/worker.log."""
    command = ("worker", "--gpus", "none")
    with deconvoy.logging(tmp_path / "worker.log", *command, DECONVOY_REDIS_URL=redis_url) as process:
        yield process


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photographs in a folder."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for photograph in photographs()[:3]:
        shutil.copy(photograph, folder)
    return folder


@pytest.fixture
def submit_small(redis_url: str, photos: Path, tmp_path: Path) -> Callable[[int], JobHandle]:
    """Submits a job of the photographs that is done in no time, in shards of so many images."""

    def submit_(shard_size: int) -> JobHandle:
        return submit(
            str(photos),
            out=str(tmp_path / "jobs"),
            settings=Settings(redis_url=redis_url),
            weights="random:0",
            model="vgg11",
            specs=("pool1:max",),
            size_px=32,
            shard_size=shard_size,
        )

    return submit_
