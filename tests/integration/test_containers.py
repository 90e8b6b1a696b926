"""What the containers of docker/ run, as processes: the same commands, settings and users of Redis.

A Redis with a password and the ACL, an S3 server, a worker, a beat, and what an operator types.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from string import Template

import numpy as np
import psutil
import pytest
import redis
from PIL import Image

from producer.local import find_server
from producer.schedules import Schedules
from tests.cluster import TIMEOUT_S, Deconvoy, end_with_children, wait_until
from tests.docker_files import DOCKER, last_in_dockerfile, services, variables
from tests.length import AT_LENGTH
from tests.ports import free_port
from worker.contract import keys
from worker.contract.settings import Settings
from worker.storage import open_store

pytestmark = [pytest.mark.integration, *AT_LENGTH]

SERVICES = services("compose.yaml")
OPTIONS = ("--weights", "random:0", "--resize", "native")
AUDIT = (*OPTIONS, "--layer", "pool1", "--top", "2")


class Containers:
    """The services of compose.yaml as processes of this machine, with names and places of its own."""

    def __init__(self, folder: Path, bucket: str, s3: dict[str, str], ending: ExitStack) -> None:
        self.photos = folder / "photos"
        self.place = f"s3://{bucket}"
        self.metrics_port, self.flower_port, self._redis_port = (str(free_port()) for _ in range(3))
        self._folder = folder
        self._ending = ending
        for name in (".env.example", "deconvoy.env.example", "prepare.sh", "redis/users.acl.example"):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(DOCKER / name, folder / name)
        subprocess.run([folder / "prepare.sh"], check=True)
        self.outer = {**variables(folder / ".env"), "S3_BUCKET": bucket}
        settings = {
            name: Template(value).substitute(self.outer)
            .replace("@redis:6379", f"@127.0.0.1:{self._redis_port}")
            .replace("/photos", str(self.photos))
            for name, value in variables(folder / "deconvoy.env").items()
        }  # fmt: skip
        outside = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        self.environment = {**outside, "HOME": str(folder), **settings, **s3}
        self.deconvoy = Deconvoy(self.environment, folder)

    def start_redis(self) -> None:
        """The server with the options of its container; returns when it answers."""
        acl = str(self._folder / "redis" / "users.acl")
        _, *options = [acl if word.endswith("/users.acl") else word for word in SERVICES["redis"]["command"]]
        own = ["--port", self._redis_port, "--bind", "127.0.0.1", "--dir", str(self._folder)]
        self._start("redis", find_server(), *own, *options)

        def answers() -> bool:
            try:
                with redis.Redis.from_url(self.environment["DECONVOY_REDIS_URL"]) as client:
                    return bool(client.ping())
            except redis.ConnectionError:
                return False

        wait_until(answers, "Redis answers")

    def start(self, service: str) -> psutil.Process:
        """`worker` or `beat`, with the command of its container."""
        words = [self.metrics_port if word == "9100" else word for word in SERVICES[service]["command"]]
        return self._start(service, sys.executable, "-P", "-m", "producer.cli", *words)

    def start_flower(self) -> None:
        """Flower, with the command and the variables of its container."""
        program, *words = last_in_dockerfile("ENTRYPOINT", "flower")
        given = {name: value.replace(":?}", "}") for name, value in SERVICES["flower"]["environment"].items()}
        self.environment |= {name: Template(value).substitute(self.outer) for name, value in given.items()}
        self.environment["PYTHONPATH"] = str(DOCKER / "flower")
        self._start("flower", sys.executable, "-m", program, *words, f"--port={self.flower_port}")

    def log_of(self, service: str) -> str:
        return (self._folder / f"{service}.log").read_text()

    def lives(self, script: str, *arguments: str) -> bool:
        """What a health check says."""
        command = [sys.executable, "-I", str(DOCKER / script), *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, check=False).returncode == 0

    def has_report(self, name: str) -> bool:
        """Whether the page of a job of this name stands in the bucket."""
        stored = open_store(self.place).list("")
        return any(key.startswith(f"{name}-") and key.endswith(f"/{keys.REPORT}") for key in stored)

    def _start(self, service: str, *command: str) -> psutil.Process:
        with (self._folder / f"{service}.log").open("w") as log:
            process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, text=True)
        self._ending.callback(end_with_children, process)
        return psutil.Process(process.pid)


@pytest.fixture
def containers(short_folder: Path, s3_bucket: str, s3_environment: dict[str, str]) -> Iterator[Containers]:
    with ExitStack() as ending:
        started = Containers(short_folder, s3_bucket, s3_environment, ending)
        for number in range(3):
            pixels_HWC = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels_HWC).save(started.photos / f"{number}.png")
        started.start_redis()
        yield started


def test_a_job_an_audit_and_a_schedule_are_done(containers: Containers) -> None:
    worker, beat = containers.start("worker"), containers.start("beat")
    deconvoy, out = containers.deconvoy, ("--out", containers.place)
    photos = str(containers.photos)

    submitted = deconvoy("submit", photos, *out, *OPTIONS, "--spec", "pool1:max", "--name", "job")
    assert submitted.returncode == 0, submitted.stderr
    audited = deconvoy("audit", photos, *out, *AUDIT, "--name", "audit", "--wait")
    assert audited.returncode == 0, audited.stderr + containers.log_of("worker")
    added = deconvoy("schedule", "add", "nightly", "--cron", "0 3 * * *", "--", "audit", photos, *out, *AUDIT)
    assert added.returncode == 0, added.stderr
    schedules = Schedules(Settings(redis_url=containers.environment["DECONVOY_REDIS_URL"]))
    try:  # as if no beat had run since yesterday's due time
        schedules.entry("nightly").reschedule(last_run_at=datetime.now(UTC) - timedelta(days=2))
    finally:
        schedules.close()

    for name in ("job", "audit", "nightly"):
        wait_until(partial(containers.has_report, name), f"the page of {name}")
    status = deconvoy("status", f"{containers.place}/{submitted.stdout.strip()}", "--json")
    assert json.loads(status.stdout)["state"] == "finished", status.stdout
    assert containers.lives("healthcheck.py", f"http://127.0.0.1:{containers.metrics_port}/metrics")
    assert containers.lives("beat_health.py")

    for service, process in (("worker", worker), ("beat", beat)):
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0
        assert "ermission" not in containers.log_of(service), containers.log_of(service)


def test_flower_sees_the_workers_and_can_stop_none(containers: Containers) -> None:
    containers.start("worker")
    containers.start_flower()
    account = base64.b64encode(containers.environment["FLOWER_BASIC_AUTH"].encode()).decode()

    def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        url = f"http://127.0.0.1:{containers.flower_port}{path}"
        try:
            request = urllib.request.Request(url, method=method, headers=headers)
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 (our own server)
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, b""
        except urllib.error.URLError:
            return 0, b""

    wait_until(lambda: ask("/healthcheck")[0] == 200, "Flower answers")
    assert ask("/api/workers")[0] == ask("/workers?json=1")[0] == 401

    def seen() -> list[str]:
        # What its page lists, of events: workers answer no questions, since remote control is off.
        told = json.loads(ask("/workers?json=1", Authorization=f"Basic {account}")[1])
        return [worker["hostname"] for worker in told["data"]]

    wait_until(lambda: seen() != [], "Flower sees the worker")
    (name,) = seen()
    assert name.startswith("deconvoy-cpu-")
    assert ask(f"/api/worker/shutdown/{name}", "POST", Authorization=f"Basic {account}")[0] == 403
