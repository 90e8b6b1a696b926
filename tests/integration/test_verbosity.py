"""How much real workers and a real beat say with --quiet and --verbose."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from producer.jobs import JobHandle
from tests.cluster import Deconvoy, wait_until
from tests.length import at_length
from worker.contract import keys

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_a_verbose_beat_logs_in_full_and_a_quiet_one_nothing(
    deconvoy: Deconvoy, redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    def locked() -> bool:
        return bool(client.keys("deconvoy:redbeat:*lock"))

    logs = {}
    for option in ("--verbose", "--quiet"):
        log = tmp_path / f"{option}.log"
        with deconvoy.logging(log, "beat", option, DECONVOY_REDIS_URL=redis_url) as process:
            wait_until(locked, "the beat holds the lock")
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        wait_until(lambda: not locked(), "the lock is free again")
        logs[option] = log.read_text()

    assert " DEBUG " in logs["--verbose"]
    assert logs["--quiet"] == ""


@at_length
def test_a_quiet_worker_says_nothing_while_all_is_well(
    deconvoy: Deconvoy, redis_url: str, submit_small: Callable[[int], JobHandle], tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    command = ("worker", "--gpus", "none", "--quiet")
    with deconvoy.logging(log, *command, DECONVOY_REDIS_URL=redis_url) as process:
        handle = submit_small(2)
        wait_until((Path(handle.place) / keys.REPORT).exists, "the page of the job")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0

    assert log.read_text() == ""
