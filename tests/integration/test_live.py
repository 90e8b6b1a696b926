"""What a worker publishes of a job while it runs, in a real Redis."""

from __future__ import annotations

import logging

import pytest
import redis

from worker.contract import queue
from worker.fleet.live import Live

pytestmark = pytest.mark.integration


def test_seconds_of_shards_add_up_and_of_a_resource_the_most_counts(client: redis.Redis) -> None:
    # Given two workers, each of which publishes a shard
    for stages, resources in (
        ({"read": 1.5, "project": 4.0}, {"peak_rss_bytes": 5_000_000_000_001, "most_loaded_ahead": 3}),
        ({"read": 0.25, "project": 2.5}, {"peak_rss_bytes": 4_000_000_000_000, "most_loaded_ahead": 9}),
    ):
        Live(client).add_work("job-1", stages, resources)
    seconds = {stage: float(text) for stage, text in client.hgetall(queue.stages_key("job-1")).items()}
    assert seconds == {"read": 1.75, "project": 6.5}
    most = queue.resources_key("job-1")
    assert client.zscore(most, "peak_rss_bytes") == 5_000_000_000_001
    assert client.zscore(most, "most_loaded_ahead") == 9
    for key in (queue.stages_key("job-1"), queue.resources_key("job-1")):
        assert 0 < client.ttl(key) <= queue.LIVE_KEYS_TTL_S


def test_a_redis_that_is_gone_stops_no_work_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with redis.Redis.from_url("unix:///nowhere/redis.sock") as gone, caplog.at_level(logging.WARNING):
        live = Live(gone)
        live.add_work("job-1", {"read": 1.0}, {"peak_rss_bytes": 1})
        live.progress("job-1", 0, 1, 0)
    assert len(caplog.records) == 2
    assert all(record.getMessage().startswith("Redis did not take") for record in caplog.records)
