"""The part `scale` of the bench, small: its numbers come from the real commands, queue and workers."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.bench.scale import Figure, Size, Throughput, figures
from tests.bench.simulated import stand_ins
from tests.length import at_length
from worker import runtime

TINY = Size(images=2_000, shards=20, workers=2, shards_each=2, shard_s=0.3)


def test_a_sleeping_worker_has_all_that_the_real_one_imports_from_what_is_asleep() -> None:
    source = ast.parse(Path(runtime.__file__).read_text(encoding="utf-8"))
    given = stand_ins()
    wanted = {
        (node.module, alias.name)
        for function in ast.walk(source)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and node.module in given
        for alias in node.names
    }
    assert len(wanted) >= 8
    assert {(module, name) for module, name in wanted if not hasattr(given[module], name)} == set()


@pytest.mark.integration
@at_length
def test_each_number_is_measured_and_has_its_limit() -> None:
    found = {figure.name: figure for figure in figures(TINY)}
    assert [name for name, figure in found.items() if (figure.most, figure.least) != (None, None)] == [
        "submit 2,000 lines: wall time",
        "submit 2,000 lines: peak memory",
        "submit 2,000 lines: memory of Redis",
        "status, 20 shards, unfinished: call",
        "status, 20 shards, unfinished: command",
        "status, 20 shards, finished: call",
        "status, 20 shards, finished: command",
        "2 against 1: of linear",
    ]
    assert 20 < found["submit 2,000 lines: peak memory"].value < 250
    # 2,000 images of the article's ten specs, 276 in a shard.
    assert found["submit 2,000 lines: messages"].value == 8
    assert found["1 sleeping workers, shards of 0.3 s: rate"].value < 1 / 0.3
    assert found["1 sleeping workers, shards of 0.3 s: queue, a shard"].value > 0
    assert 0 < found["2 against 1: of linear"].value < 1.5


def test_the_queue_costs_what_the_sleep_does_not() -> None:
    throughput = Throughput(n_workers=4, n_shards=8, shard_s=2.0, wall_s=4.5)
    assert throughput.queue_s == pytest.approx(0.25)
    assert throughput.shards_a_second == pytest.approx(8 / 4.5)


def test_a_number_beyond_its_limit_says_so() -> None:
    assert "MISSED" not in Figure("time", 60.0, "s", most=60).line()
    assert Figure("time", 61.0, "s", most=60).line().endswith("<= 60  MISSED")
    assert Figure("rate", 0.9, "", least=0.95).line().endswith(">= 0.95  MISSED")
