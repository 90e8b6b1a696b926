"""A worker's totals: what it counts is what the launcher reads, through a real Redis."""

from __future__ import annotations

import logging

import pytest
import redis
import torch

from worker.fleet.telemetry import Telemetry, Totals, read_totals, totals_key

pytestmark = pytest.mark.integration


def test_shards_add_up_and_memory_is_that_of_the_last(client: redis.Redis) -> None:
    telemetry = Telemetry(client, "gpu0@host")
    telemetry.add_shard(90, 10, {"read": 1.5, "project": 4.0}, peak_rss_bytes=5_000_000_000_001)
    telemetry.add_shard(7, 0, {"read": 0.25, "write": 1.0}, peak_rss_bytes=4_000_000_000_000)
    telemetry.add_failed_shard()

    totals, nobody = read_totals(client, ["gpu0@host", "gpu1@host"])

    assert totals == Totals(
        images_ok=97,
        images_failed=10,
        shards_ok=2,
        shards_failed=1,
        stages={"read": 1.75, "project": 4.0, "write": 1.0},
        peak_rss_bytes=4_000_000_000_000,
    )
    assert nobody == Totals()


def test_totals_expire_a_day_after_the_last_shard(client: redis.Redis) -> None:
    Telemetry(client, "gpu0@host").add_failed_shard()

    assert 24 * 3600 - 60 < client.ttl(totals_key("gpu0@host")) <= 24 * 3600


def test_a_redis_that_is_gone_stops_no_work_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with redis.Redis.from_url("unix:///nowhere/redis.sock", decode_responses=True) as client:
        Telemetry(client, "gpu0@host").add_shard(1, 0, {"read": 1.0}, peak_rss_bytes=1)

    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("Redis did not take this worker's totals")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_on_a_gpu_its_memory_is_told(client: redis.Redis) -> None:
    held = torch.zeros(2**28, dtype=torch.uint8, device="cuda")
    Telemetry(client, "gpu0@host").add_shard(1, 0, {}, peak_rss_bytes=1)

    [totals] = read_totals(client, ["gpu0@host"])

    assert totals.gpu_total_bytes == torch.cuda.get_device_properties(0).total_memory
    assert totals.gpu_used_bytes is not None
    assert held.numel() < totals.gpu_used_bytes < totals.gpu_total_bytes
