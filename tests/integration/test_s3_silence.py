"""A real worker whose S3 server falls silent for half a minute in the middle of a job: nothing is lost."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from producer import open_job
from producer.jobs import JobHandle
from tests.cluster import Deconvoy, wait_until
from tests.fault_proxy import FaultProxy
from tests.length import AT_LENGTH
from tests.s3_server import environment_for
from tests.unit.standin import noise_images
from worker.contract.settings import Settings
from worker.storage import open_store

pytestmark = [pytest.mark.integration, *AT_LENGTH]

SILENCE_S = 30
TIMEOUT_S = 5
N_IMAGES = 48
SHARD_SIZE = 16
SPECS = ("pool1:max", "pool2:all")


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[FaultProxy]:
    with FaultProxy(s3_endpoint) as running:
        yield running


@pytest.fixture
def deconvoy(deconvoy: Deconvoy, proxy: FaultProxy) -> Deconvoy:
    """Its commands and its worker reach S3 through the proxy, and wait less long than by default."""
    environment = {
        **deconvoy.environment,
        **environment_for(proxy.url),
        "DECONVOY_S3_READ_TIMEOUT_S": str(TIMEOUT_S),
    }
    return replace(deconvoy, environment=environment)


def submit(deconvoy: Deconvoy, redis_url: str, photos: str, out: str) -> JobHandle:
    options = ("--weights", "random:0", "--size", "64", "--shard-size", str(SHARD_SIZE))
    specs = ("--spec", SPECS[0], "--spec", SPECS[1])
    submitted = deconvoy("submit", photos, "--out", out, *options, *specs, DECONVOY_REDIS_URL=redis_url)
    assert submitted.returncode == 0, submitted.stderr
    # From here, past the proxy.
    return open_job(submitted.stdout.strip(), Settings(redis_url=redis_url))


def results(handle: JobHandle) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = handle.index().to_pylist()
    for row in rows:
        assert hashlib.sha256(handle.store.read(row["key"])).hexdigest() == row["sha256"]
    return [{**row, "seconds": None} for row in rows]


def n_asked(proxy: FaultProxy, uri: str) -> int:
    """How many different objects below `uri` were asked for."""
    return sum(f"s3://{key}".startswith(uri) for _, key in list(proxy.requests))


def test_half_a_minute_of_silence_in_the_middle_of_a_job_leaves_no_trace(
    s3_environment: dict[str, str],
    s3_bucket: str,
    proxy: FaultProxy,
    deconvoy: Deconvoy,
    redis_url: str,
    worker: subprocess.Popen[str],
    tmp_path: Path,
) -> None:
    photos = open_store(f"s3://{s3_bucket}/photos")
    for path in noise_images(tmp_path, [(80 + number, 70) for number in range(N_IMAGES)]):
        photos.write(path.name, path.read_bytes())
    images = [f"{photos.place}/{key}" for key in photos.list("")]
    calm = submit(deconvoy, redis_url, photos.place, f"s3://{s3_bucket}/calm")
    assert calm.wait().n_failed == 0

    stormy = submit(deconvoy, redis_url, photos.place, f"s3://{s3_bucket}/stormy")
    # In the middle of a shard: half of all pictures are written or on their way.
    wait_until(lambda: n_asked(proxy, f"{stormy.place}/recon/") >= N_IMAGES * len(SPECS) // 2, "half is done")
    with proxy.silent():
        before = proxy.requests.total()
        threading.Event().wait(SILENCE_S)
        assert stormy.missing_shards()
        # Who asked, gave up, and asked again.
        assert proxy.requests.total() > before

    assert stormy.wait().n_failed == 0
    rows = results(stormy)
    assert Counter((row["image"], row["spec"]) for row in rows) == Counter(
        (image, spec) for image in images for spec in SPECS
    )
    assert {row["status"] for row in rows} == {"ok"}
    assert rows == results(calm)
    assert worker.poll() is None
