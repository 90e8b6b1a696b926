"""The bench's own truth: its record has the right shape, and each side of a ratio ran."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from tests.bench import audit
from tests.bench.__main__ import main
from tests.bench.parts import Disagreement, _checked

TINY = ["--quick", "--pools", "1", "--size", "64", "--weights", "random:0"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "bench.json"


def test_one_unit_is_measured_against_its_floor_and_all_baselines(out: Path) -> None:
    main(["units", "--units", "1,128", *TINY, "--out", str(out)])
    record = json.loads(out.read_text())
    assert [(row["case"], row["against"]) for row in record["rows"]] == [
        ("pool1 x 1", "its convolutions"),
        ("pool1 x 1", "captum"),
        ("pool1 x 1", "captum, each"),
        ("pool1 x 1", "article"),
        ("pool1 x 1", "autograd"),
    ]
    for row in record["rows"]:
        if row["against"] == "its convolutions":
            assert row["difference"] is None
            continue
        assert row["units"] == row["baseline_units_measured"] == 1
        assert 0 <= row["difference"] < 1e-3
        ratio = row["ratio"]
        assert 0 < ratio["lowest"] <= ratio["median"] <= ratio["highest"] < math.inf
        assert ratio["ours_s"] > 0
        assert ratio["baseline_s"] > 0
        assert ratio["rounds"] >= 1
    setting = record["setting"]
    assert (setting["size"], setting["weights"], setting["quick"]) == (64, "random:0", True)
    assert torch.__version__.startswith(setting["torch"])
    assert setting["threads"] >= 1
    assert record["notes"][0] == "pool1 has 64 units: 128 an image is left out"
    assert record["gpu"]["run"] == torch.cuda.is_available()


@pytest.mark.parametrize(("options", "measured"), [([], 2), (["--full"], 3)])
def test_it_says_how_many_units_of_the_baselines_ran(out: Path, options: list[str], measured: int) -> None:
    main(["units", "--units", "3", *TINY, *options, "--out", str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert {row["baseline_units_measured"] for row in rows if row["against"] == "captum"} == {measured}


def test_whole_maps_and_the_forward_pass_are_measured_too(out: Path) -> None:
    main(["all", "forward", *TINY, "--out", str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert [row["part"] for row in rows] == ["all", "forward"]
    assert all(row["ratio"]["median"] > 0 for row in rows)


def test_no_ratio_is_given_for_results_that_differ() -> None:
    with pytest.raises(Disagreement, match="mean nothing"):
        _checked("two different things", torch.ones(3), torch.tensor([1.0, 1.0, 1.01]))


def test_an_audit_is_measured_by_its_scan_its_atlas_and_an_image_at_a_time(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "ATLAS_POOLS", audit.POOLS[:1])
    monkeypatch.setattr(audit, "COST_LAYER", "pool1")
    main(["audit", "--audit-images", "30,40", *TINY, "--out", str(out)])
    record = json.loads(out.read_text())
    scan, atlas = record["rows"]
    assert (scan["against"], atlas["against"]) == ("plain trunk", "Captum")
    assert max(scan["difference"], atlas["difference"]) < 1e-3
    assert [cost["n_images"] for cost in record["audit"]] == [30, 40]
    assert all(
        cost["again_ms"] > 0 and cost["ms"] == cost["scan_ms"] + cost["tables_ms"] for cost in record["audit"]
    )
