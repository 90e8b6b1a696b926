"""The health checks of the containers, run as they run there."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redbeat.schedulers import RedBeatConfig

from producer.schedules import schedule_app
from tests.cluster import redis_server
from tests.docker_files import DOCKER
from tests.ports import free_port
from worker.contract.queue import KEY_PREFIX
from worker.machine.metrics import serving
from worker.machine.supervisor import WorkerState

NOWHERE = "redis://127.0.0.1:1/0"


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(DOCKER / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def worker(label: str, up: bool) -> WorkerState:
    return WorkerState(label, f"deconvoy-{label}", up=up, n_restarts=0)


@pytest.mark.parametrize(
    ("states", "says"),
    [
        ([worker("cpu", True)], ""),
        ([worker("gpu0", True), worker("gpu1", True)], ""),
        ([worker("gpu0", True), worker("gpu1", False)], "not running: gpu1\n"),
        ([], "no worker is named at "),
    ],
)
def test_workers_live_if_all_of_them_run_though_redis_is_away(states: list[WorkerState], says: str) -> None:
    port = free_port()
    with serving(port, NOWHERE, lambda: states):
        ended = run("healthcheck.py", f"http://127.0.0.1:{port}/metrics")
    assert ended.returncode == bool(says)
    assert ended.stderr.startswith(says)
    assert bool(ended.stderr) == bool(says)


def test_workers_without_a_launcher_do_not_live() -> None:
    ended = run("healthcheck.py", f"http://127.0.0.1:{free_port()}/metrics")
    assert ended.returncode == 1
    assert ended.stderr.startswith("the launcher does not answer at ")
    assert ended.stderr.count("\n") == 1


def test_what_is_no_launcher_is_not_taken_for_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/metrics"
        command = [sys.executable, "-I", str(DOCKER / "healthcheck.py"), url]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"+PONG\r\n")
            _, said = process.communicate()
    assert process.returncode == 1
    assert said.startswith("the launcher does not answer at ")


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    with redis_server(tmp_path) as url:
        yield url


def test_a_beat_works_as_long_as_the_lock_of_the_beats_is_held(redis_url: str) -> None:
    key = RedBeatConfig(schedule_app(redis_url)).lock_key
    assert key.startswith(KEY_PREFIX)
    gone = run("beat_health.py", DECONVOY_REDIS_URL=redis_url)
    assert (gone.returncode, gone.stderr) == (1, "no beat holds the lock\n")
    with redis.Redis.from_url(redis_url) as client:
        client.set(key, "token", ex=30)
    held = run("beat_health.py", DECONVOY_REDIS_URL=redis_url)
    assert (held.returncode, held.stderr) == (0, "")


def test_a_redis_that_is_away_is_not_the_fault_of_the_beat() -> None:
    ended = run("beat_health.py", DECONVOY_REDIS_URL=NOWHERE)
    assert ended.returncode == 0
    assert ended.stderr.startswith("Redis does not answer: ")
