"""The pipeline's bench: each side of its ratios works, and memory is looked at after each shard."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.bench.__main__ import main
from tests.bench.pipeline import Growth
from tests.bench.pipeline_floor import jpegs
from tests.length import AT_LENGTH

pytestmark = [pytest.mark.timeout(300), *AT_LENGTH]


def test_the_pipeline_is_measured_against_its_floor_and_the_engine(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    sizes = ["--images", "20", "--memory-images", "40", "--size", "64"]
    main(["pipeline", "--quick", "--weights", "random:0", *sizes, "--out", str(out)])
    record = json.loads(out.read_text())
    assert [(row["part"], row["case"], row["against"]) for row in record["rows"]] == [
        ("pipeline", "20 S3 to S3, files", "Pillow and boto3 alone"),
        ("pipeline", "20 S3 to S3, tar", "Pillow and boto3 alone"),
        ("pipeline", "2 x pool5:all", "the engine alone"),
        ("pipeline", "2 x the article's ten", "the engine alone"),
    ]
    for row in record["rows"]:
        ratio = row["ratio"]
        assert 0 < ratio["lowest"] <= ratio["median"] <= ratio["highest"] < math.inf
    memory = record["memory"]
    assert memory["n_images"] == 40
    assert len(memory["rss_mib"]) == 10
    assert all(0 < rss_mib < 4096 for rss_mib in memory["rss_mib"])


def test_growth_is_counted_from_the_second_shard_on() -> None:
    assert Growth(30, (100.0, 150.0, 149.0, 152.5)).from_second_mib == 2.5


def test_fewer_images_than_shards_cannot_be_watched(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["pipeline", "--memory-images", "9"])
    assert "at least 10 are needed" in capsys.readouterr().err


def test_photographs_differ_and_have_the_bytes_of_photographs() -> None:
    images = jpegs(12)
    assert len(set(images)) == 12
    assert 80_000 < sum(map(len, images)) / 12 < 140_000
