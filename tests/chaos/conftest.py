"""One cluster for all tests of this folder: what a test breaks of it, it must find whole at its end."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from producer.jobs import JobHandle
from tests.chaos.convoy import SECONDS_AN_IMAGE, Convoy, Outcome
from tests.cluster import wait_until
from tests.fault_proxy import FaultProxy
from tests.s3_server import environment_for
from worker.contract import keys
from worker.storage import client as s3

S3_READ_TIMEOUT_S = 2
S3_ATTEMPTS = 3


@dataclass(frozen=True)
class Length:
    """How long faults last: short in `make test`, as long as the table of faults says in `make chaos`."""

    full: bool

    @property
    def redis_stands_still_s(self) -> float:
        return 60 if self.full else 5

    def let_s3_be_away(self) -> None:
        time.sleep(60 if self.full else 5)

    @property
    def n_kills(self) -> int:
        return 50 if self.full else 5

    @property
    def slow_s(self) -> float:
        """Seconds an image while workers are killed: the job must not end before."""
        return 0.5


@pytest.fixture(scope="package")
def length() -> Length:
    return Length(os.environ.get("CHAOS") == "full")


@pytest.fixture(scope="package")
def convoy(s3_endpoint: str) -> Iterator[Convoy]:
    folder = Path(tempfile.mkdtemp(prefix="deconvoy-chaos-"))
    # The S3 server runs in this process: a line for each of thousands of requests would cost more than they.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as environment, FaultProxy(s3_endpoint) as proxy:
        for name, value in environment_for(proxy.url).items():
            environment.setenv(name, value)
        environment.delenv("AWS_PROFILE", raising=False)
        environment.setenv("DECONVOY_S3_READ_TIMEOUT_S", str(S3_READ_TIMEOUT_S))
        environment.setenv("DECONVOY_S3_MAX_ATTEMPTS", str(S3_ATTEMPTS))
        bucket = f"chaos-{uuid.uuid4().hex}"
        s3.s3_client().create_bucket(Bucket=bucket)
        running = Convoy(folder, proxy, bucket)
        yield running
        running.close()
        for opened in s3._clients.values():
            opened.close()
        s3._clients.clear()
    shutil.rmtree(folder)


@pytest.fixture(scope="package")
def undisturbed(convoy: Convoy) -> Outcome:
    """What the job leaves when nothing disturbs it."""
    convoy.the_worker()
    handle = convoy.submit("undisturbed")
    handle.wait()
    return Outcome.of(handle)


@pytest.fixture
def name(request: pytest.FixtureRequest, convoy: Convoy) -> Iterator[str]:
    """The test's own name of its job; afterwards the weather is fair again."""
    yield f"job-{uuid.uuid4().hex[:8]}"
    convoy.proxy.heal()
    convoy.set_pace(SECONDS_AN_IMAGE)


def finish(convoy: Convoy, handle: JobHandle, undisturbed: Outcome) -> None:
    """Wait for the job's end, and see that nothing differs and nothing is left."""
    wait_until(lambda: handle.store.exists(keys.REPORT), "the job is finished", 120)
    assert handle.wait().n_failed == 0, list(handle.failures())
    Outcome.of(handle).check(undisturbed)
    convoy.check_queue_is_empty(handle.id)
