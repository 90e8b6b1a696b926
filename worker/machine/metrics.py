"""The metrics of this machine's workers and of their queue, for Prometheus. docs/metrics.md explains each.

Served by the launcher, which has no work to disturb. What Redis knows is asked at each scrape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import redis
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from worker.contract import queue
from worker.contract.errors import SettingsError
from worker.fleet.telemetry import Totals, read_totals
from worker.machine.supervisor import WorkerState

_TIMEOUT_S = 2
"""How long a scrape waits for Redis: less than the 10 s after which Prometheus gives up by default."""


@dataclass(frozen=True)
class Definition:
    """A metric, as docs/metrics.md lists it."""

    name: str
    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...]
    means: str


DEFINITIONS = (
    Definition("deconvoy_redis_up", "gauge", (), "1 if Redis answered this scrape, else 0."),
    Definition("deconvoy_queue_shards", "gauge", ("priority",), "Shards that wait in the queue."),
    Definition("deconvoy_queue_unacknowledged_shards", "gauge", (), "Shards that workers hold."),
    Definition("deconvoy_worker_up", "gauge", ("worker",), "1 if the worker's process runs, else 0."),
    Definition("deconvoy_worker_restarts_total", "counter", ("worker",), "Starts after a death."),
    Definition("deconvoy_images_total", "counter", ("worker", "status"), "Images in finished shards."),
    Definition("deconvoy_shards_total", "counter", ("worker", "status"), "Shards done or given up."),
    Definition("deconvoy_stage_seconds_total", "counter", ("worker", "stage"), "Seconds of work by stage."),
    Definition("deconvoy_peak_memory_bytes", "gauge", ("worker",), "The most memory its process has held."),
    Definition("deconvoy_gpu_memory_used_bytes", "gauge", ("worker",), "GPU memory in use."),
    Definition("deconvoy_gpu_memory_total_bytes", "gauge", ("worker",), "GPU memory in all."),
)

Samples = dict[str, list[tuple[list[str], float]]]
"""Name of a metric -> values of its labels, and its value."""


class Metrics(Collector):
    """Collects the metrics anew for each scrape, in any thread. `client` decodes responses."""

    def __init__(self, client: redis.Redis, states: Callable[[], Sequence[WorkerState]]) -> None:
        self._client = client
        self._states = states

    def collect(self) -> Iterator[Metric]:
        """All metrics that have a value now. Where Redis does not answer, only what the launcher knows."""
        states = self._states()
        samples = _of_launcher(states)
        try:
            totals = read_totals(self._client, [state.name for state in states])
            samples |= self._of_queue() | _of_work(dict(zip(states, totals, strict=True)))
        except redis.RedisError:
            samples["deconvoy_redis_up"] = [([], 0)]
        for definition in DEFINITIONS:
            if definition.name in samples:
                yield _family(definition, samples[definition.name])

    def _of_queue(self) -> Samples:
        with self._client.pipeline() as pipe:
            for step in queue.PRIORITIES.values():
                pipe.llen(queue.list_key(step))
            pipe.hlen(queue.UNACKED_KEY)
            *waiting, unacknowledged = pipe.execute()
        return {
            "deconvoy_redis_up": [([], 1)],
            "deconvoy_queue_shards": [
                ([priority], n) for priority, n in zip(queue.PRIORITIES, waiting, strict=True)
            ],
            "deconvoy_queue_unacknowledged_shards": [([], unacknowledged)],
        }


@contextmanager
def serving(port: int, redis_url: str, states: Callable[[], Sequence[WorkerState]]) -> Iterator[None]:
    """Serve the metrics over HTTP while the block runs. Raises SettingsError if the port cannot be had."""
    client = redis.Redis.from_url(
        redis_url, decode_responses=True, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
    )
    # A registry of its own: the default one would add the launcher's Python to the numbers.
    registry = CollectorRegistry()
    registry.register(Metrics(client, states))
    try:
        server, thread = start_http_server(port, registry=registry)
    except (OSError, OverflowError) as error:
        raise SettingsError(
            f"metrics cannot be served on port {port}: {error}; name another with --metrics-port"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        client.close()


def _of_launcher(states: Sequence[WorkerState]) -> Samples:
    return {
        "deconvoy_worker_up": [([state.label], state.up) for state in states],
        "deconvoy_worker_restarts_total": [([state.label], state.n_restarts) for state in states],
    }


def _of_work(totals: dict[WorkerState, Totals]) -> Samples:
    by_label = {state.label: done for state, done in totals.items()}
    samples: Samples = {
        "deconvoy_images_total": [],
        "deconvoy_shards_total": [],
        "deconvoy_stage_seconds_total": [],
    }
    for label, done in by_label.items():
        samples["deconvoy_images_total"] += [
            ([label, "ok"], done.images_ok),
            ([label, "failed"], done.images_failed),
        ]
        samples["deconvoy_shards_total"] += [
            ([label, "ok"], done.shards_ok),
            ([label, "failed"], done.shards_failed),
        ]
        samples["deconvoy_stage_seconds_total"] += [
            ([label, stage], seconds) for stage, seconds in done.stages.items()
        ]
    memory = {
        "deconvoy_peak_memory_bytes": "peak_rss_bytes",
        "deconvoy_gpu_memory_used_bytes": "gpu_used_bytes",
        "deconvoy_gpu_memory_total_bytes": "gpu_total_bytes",
    }
    for name, field in memory.items():
        known = [(label, getattr(done, field)) for label, done in by_label.items()]
        samples[name] = [([label], n_bytes) for label, n_bytes in known if n_bytes is not None]
    return samples


def _family(definition: Definition, samples: list[tuple[list[str], float]]) -> Metric:
    kind = CounterMetricFamily if definition.kind == "counter" else GaugeMetricFamily
    family = kind(definition.name, definition.means, labels=definition.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family
