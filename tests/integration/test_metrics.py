"""`deconvoy worker` as its operator sees it: metrics over HTTP, log lines, deaths and the end.

Real workers, a real Redis.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import redis
from celery import Celery
from prometheus_client.parser import text_string_to_metric_families

from producer.jobs import JobHandle, submit
from tests.cluster import TIMEOUT_S, Deconvoy, end_with_children, wait_until
from tests.ports import free_port
from worker.contract import queue
from worker.contract.settings import Settings
from worker.contract.stages import STAGES
from worker.machine import metrics
from worker.machine.supervisor import WorkerState

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
Sample = tuple[str, tuple[tuple[str, str], ...]]


def scrape(port: int) -> dict[Sample, float]:
    """Name and labels -> value, of all samples."""
    with urllib.request.urlopen(f"http://localhost:{port}/metrics", timeout=TIMEOUT_S) as response:
        text = response.read().decode()
    return {
        sample(each.name, **each.labels): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def sample(name: str, **labels: str) -> Sample:
    return name, tuple(sorted(labels.items()))


def waiting(client: redis.Redis) -> int:
    return sum(client.llen(key) for key in queue.list_keys())


@dataclass
class Running:
    """`deconvoy worker` on the CPU, with metrics, and its log in JSON."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    def scrape(self) -> dict[Sample, float]:
        return scrape(self.port)

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    @property
    def celery(self) -> psutil.Process:
        """Celery's parent process."""
        [celery] = psutil.Process(self.process.pid).children()
        return celery

    def wait_until_ready(self) -> None:
        wait_until(lambda: "ready." in self.log.read_text(), "the worker is ready")


@pytest.fixture
def operated(deconvoy: Deconvoy, redis_url: str, tmp_path: Path) -> Iterator[Running]:
    port, log = free_port(), tmp_path / "worker.log"
    options = ["--gpus", "none", "--metrics-port", str(port), "--log-format", "json"]
    environment = {"DECONVOY_REDIS_URL": redis_url, "DECONVOY_SHUTDOWN_S": "120"}
    with deconvoy.logging(log, "worker", *options, **environment) as process:
        yield Running(process, port, log)


@pytest.fixture
def submitted(redis_url: str, photos: Path, tmp_path: Path) -> Callable[..., JobHandle]:
    """Submits a job of three photographs and a broken one."""
    (photos / "broken.png").write_bytes(b"no picture")

    def submit_(**options: int) -> JobHandle:
        return submit(
            str(photos),
            out=str(tmp_path / "out"),
            settings=Settings(redis_url=redis_url),
            weights="random:0",
            model="vgg11",
            specs=["pool2:max"],
            **{"size_px": 64, "shard_size": 2, **options},  # type: ignore[arg-type]  # of object
        )

    return submit_


def test_work_is_counted_and_every_line_is_json_that_names_job_and_shard(
    operated: Running, submitted: Callable[..., JobHandle]
) -> None:
    operated.wait_until_ready()
    handle = submitted()
    finished = sample("deconvoy_shards_total", worker="cpu", status="ok")
    wait_until(lambda: operated.scrape().get(finished) == 2, "both shards are counted")

    values = operated.scrape()

    assert values[sample("deconvoy_redis_up")] == 1
    assert values[sample("deconvoy_images_total", worker="cpu", status="ok")] == 3
    assert values[sample("deconvoy_images_total", worker="cpu", status="failed")] == 1
    assert values[sample("deconvoy_shards_total", worker="cpu", status="failed")] == 0
    seconds = {dict(labels)["stage"]: value for (name, labels), value in values.items() if "stage" in name}
    assert seconds.keys() == set(STAGES)
    assert seconds["forward"] > 0
    assert values[sample("deconvoy_peak_memory_bytes", worker="cpu")] > 2**26
    assert {values[sample("deconvoy_queue_shards", priority=name)] for name in queue.PRIORITIES} == {0}
    assert (values[sample("deconvoy_worker_up", worker="cpu")], operated.process.poll()) == (1, None)
    assert not any("gpu" in name for name, _ in values)

    lines = operated.lines()
    assert {(line["job"], line["shard"]) for line in lines if "job" in line} == {
        (handle.id, shard) for shard in range(2)
    }
    of_shards = [line for line in lines if line["logger"] in ("worker.runtime", "celery.app.trace")]
    assert len(of_shards) >= 3
    assert all("job" in line for line in of_shards)
    assert not any(handle.id in str(line["message"]) for line in lines)
    assert {str(line["worker"]).split("-")[1] for line in lines} == {"launcher", "cpu"}


def test_a_worker_that_is_killed_is_started_again_and_counted(operated: Running) -> None:
    operated.wait_until_ready()
    killed = operated.celery
    killed.kill()

    restarts = sample("deconvoy_worker_restarts_total", worker="cpu")
    wait_until(lambda: operated.scrape()[restarts] == 1, "the worker is started again")
    wait_until(lambda: operated.log.read_text().count("ready.") == 2, "the second one is ready")
    assert operated.celery.pid != killed.pid
    assert operated.scrape()[sample("deconvoy_worker_up", worker="cpu")] == 1


def test_with_no_restart_the_launcher_ends_as_its_worker_did(deconvoy: Deconvoy, redis_url: str) -> None:
    launcher = subprocess.Popen(
        [sys.executable, "-P", "-m", "worker.launch", "--gpus", "none", "--no-restart"],
        env={**deconvoy.environment, "DECONVOY_REDIS_URL": redis_url},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: psutil.Process(launcher.pid).children() != [], "the worker is started")
        [celery] = psutil.Process(launcher.pid).children()
        celery.kill()
        _, log = launcher.communicate(timeout=TIMEOUT_S)
    finally:
        end_with_children(launcher)

    assert launcher.returncode == 128 + signal.SIGKILL
    assert "starts again" not in log


def test_metrics_answer_while_redis_is_gone(operated: Running, client: redis.Redis) -> None:
    operated.wait_until_ready()
    client.shutdown(nosave=True)

    values = operated.scrape()

    assert values == {
        sample("deconvoy_redis_up"): 0,
        sample("deconvoy_worker_up", worker="cpu"): 1,
        sample("deconvoy_worker_restarts_total", worker="cpu"): 0,
    }
    operated.process.terminate()
    assert operated.process.wait(TIMEOUT_S) == 0
    assert not any(
        "exception" in line for line in operated.lines() if line["logger"] == "worker.machine.metrics"
    )


def test_one_signal_lets_a_worker_finish_its_shard(
    operated: Running, submitted: Callable[..., JobHandle], client: redis.Redis
) -> None:
    handle = submitted(size_px=224)
    wait_until(lambda: client.exists(queue.progress_key(handle.id)) == 1, "the first shard has begun")
    family = psutil.Process(operated.process.pid).children(recursive=True)
    operated.process.terminate()

    assert operated.process.wait(TIMEOUT_S) == 0
    missing = handle.missing_shards()
    assert 0 not in missing
    assert (waiting(client), client.hlen(queue.UNACKED_KEY)) == (len(missing), 0)
    assert psutil.wait_procs(family, TIMEOUT_S)[1] == []


def test_a_second_signal_gives_the_shard_back_at_once(
    operated: Running, submitted: Callable[..., JobHandle], client: redis.Redis
) -> None:
    handle = submitted(size_px=224, shard_size=4)
    wait_until(lambda: client.exists(queue.progress_key(handle.id)) == 1, "the shard has begun")
    family = psutil.Process(operated.process.pid).children(recursive=True)
    operated.process.send_signal(signal.SIGTERM)
    operated.process.send_signal(signal.SIGINT)

    assert operated.process.wait(TIMEOUT_S) == 0
    assert handle.missing_shards()
    assert (waiting(client), client.hlen(queue.UNACKED_KEY)) == (1, 0)
    assert psutil.wait_procs(family, TIMEOUT_S)[1] == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has died")
def test_a_launcher_that_is_killed_takes_its_workers_along(operated: Running) -> None:
    operated.wait_until_ready()
    family = psutil.Process(operated.process.pid).children(recursive=True)
    operated.process.kill()

    assert psutil.wait_procs(family, TIMEOUT_S)[1] == []


def test_a_port_that_is_taken_is_one_line(deconvoy: Deconvoy, redis_url: str) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = deconvoy("worker", "--gpus", "none", "--metrics-port", port, DECONVOY_REDIS_URL=redis_url)

    assert ended.returncode == 2
    assert re.fullmatch(
        rf"deconvoy: metrics cannot be served on port {port}: .*--metrics-port\n", ended.stderr
    )


def test_the_queue_is_counted_as_kombu_keeps_it(redis_url: str, client: redis.Redis) -> None:
    app = Celery(broker=queue.celery_url(redis_url), set_as_current=False)
    app.conf.update(queue.shared_config(900))
    for n_shards, priority in ((1, 0), (2, 3), (3, 6)):
        for _ in range(n_shards):
            app.send_task(queue.TASK_SHARD, queue=queue.QUEUE, priority=priority)
    port = free_port()
    with app.connection_for_read() as connection, metrics.serving(port, redis_url, list):
        taken = connection.default_channel.basic_get(queue.QUEUE)
        values = scrape(port)

    assert taken is not None
    assert values == {
        sample("deconvoy_redis_up"): 1,
        sample("deconvoy_queue_shards", priority="high"): 0,
        sample("deconvoy_queue_shards", priority="normal"): 2,
        sample("deconvoy_queue_shards", priority="low"): 3,
        sample("deconvoy_queue_unacknowledged_shards"): 1,
    }
    app.close()


def test_the_endpoint_is_gone_when_the_launcher_is(redis_url: str) -> None:
    port = free_port()
    state = WorkerState("gpu3", "deconvoy-gpu3-0@host", up=False, n_restarts=2)
    with metrics.serving(port, redis_url, lambda: [state]):
        assert scrape(port)[sample("deconvoy_worker_up", worker="gpu3")] == 0
    with pytest.raises(urllib.error.URLError):
        scrape(port)


def test_every_metric_is_documented_with_type_and_labels_and_no_other() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in text.splitlines() if "| `dec" in line]
    expected = [
        [f"`{definition.name}`", definition.kind, ", ".join(f"`{label}`" for label in definition.labels)]
        for definition in metrics.DEFINITIONS
    ]
    assert rows == expected
