"""A scan shard: right numbers for every image, whatever is wrong with others."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from PIL import Image

from tests.photographs import photographs
from tests.unit.audits import make_audit, profiles_of, run
from tests.unit.shards import FIT, LIMITS, SMALL
from tests.unit.standin import MEAN, STD, StandInEngine, noise_images
from worker.contract import keys, records
from worker.contract.audit_tables import profile_schema
from worker.contract.errors import JobError
from worker.contract.jobs import Preprocessing
from worker.contract.stages import STAGES
from worker.deconv import Deconvnet
from worker.pipeline import Assignment, Caution, ShardResult, run_scan
from worker.pipeline.likeness import difference_hash
from worker.pipeline.preprocess import preprocess
from worker.pipeline.scan import COMPUTED_METADATA

LAYERS = ("pool1", "conv2_1", "pool3")


def _pixels(path: Path, preprocessing: Preprocessing = SMALL) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return preprocess(image.convert("RGB"), preprocessing).pixels_HWC


# What stands in a record


def test_rows_hold_what_the_network_made_of_each_image_in_the_manifests_order(tmp_path: Path) -> None:
    paths = noise_images(tmp_path, [(50 + 9 * (n % 4), 70) for n in range(20)])
    paths[3].write_bytes(b"no image")
    paths[11] = tmp_path / "gone.png"
    engine = StandInEngine()
    store, job = make_audit(tmp_path / "job", paths, layers=LAYERS, preprocessing=FIT, batch_size=3)
    progress: list[tuple[int, int]] = []
    result = run(store, job, 0, engine, on_image=lambda done, failed: progress.append((done, failed)))
    assert result == ShardResult(0, 20, 2, committed=True)
    assert progress[-1] == (20, 2)
    assert [done for done, _ in progress] == list(range(1, 21))
    assert max(n for n, _, _ in engine.batches) == 3

    table = profiles_of(store, job)
    assert table.schema.equals(profile_schema(job.layers))
    for path, row in zip(paths, table.to_pylist(), strict=True):
        assert (row["image"], row["image_key"]) == (str(path), keys.image_key(str(path)))
        if path in (paths[3], paths[11]):
            assert row["status"] == "failed"
            assert row["error"] == ("ImageUnreadable" if path == paths[3] else "ImageNotFound")
            assert row["message"]
            assert row["peak_pool1"] is row["firing_pool3"] is row["nonfinite"] is row["width"] is None
            continue
        pixels_HWC = _pixels(path, FIT)
        x_HWC = (torch.from_numpy(pixels_HWC) - MEAN) / STD
        assert (row["status"], row["error"], row["nonfinite"]) == ("ok", None, 0)
        assert row["source_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (row["height"], row["width"]) == pixels_HWC.shape[:2]
        assert row["difference_hash"] == difference_hash(pixels_HWC)
        for layer in job.layers:
            units = torch.arange(layer.channels)
            peaks = x_HWC.amax((0, 1))[units % 3] * (1 + units)
            assert torch.equal(torch.tensor(row[f"peak_{layer.name}"]), peaks)
            firing = (x_HWC > 0).sum((0, 1))[units % 3] // layer.stride**2
            assert row[f"firing_{layer.name}"] == firing.tolist()


def test_a_record_says_what_it_took_and_with_which_weights(tmp_path: Path) -> None:
    store, job = make_audit(tmp_path / "job", noise_images(tmp_path, [(40, 40)] * 5))
    run(store, job, 0)
    metadata = profiles_of(store, job).schema.metadata
    assert metadata[records.WEIGHTS_METADATA] == b"stand-in " + b"0" * 64
    summary = records.summary_of(metadata)
    assert list(summary["stages"]) == list(STAGES)
    assert all(summary["stages"][stage] > 0 for stage in ("read", "decode", "forward"))
    assert summary["resources"]["peak_rss_bytes"] > 0
    assert metadata[COMPUTED_METADATA] == b"5"


def test_the_real_network_gives_the_same_rows_in_any_batch(tmp_path: Path) -> None:
    network = Deconvnet.load("random:0", device="cpu")
    paths = [*photographs()[:2], *noise_images(tmp_path, [(40, 40)])]
    rows = []
    for batch_size in (1, 3):
        store, job = make_audit(
            tmp_path / f"job{batch_size}", paths, layers=("pool1", "pool5"), batch_size=batch_size
        )
        run(store, job, 0, network)
        rows.append(profiles_of(store, job))
    assert rows[0].equals(rows[1])
    x_NCHW = network.normalise(torch.from_numpy(np.stack([_pixels(path) for path in paths])))
    expected = network.profile(x_NCHW, job.layers)
    for name, profile in expected.items():
        assert torch.equal(torch.tensor(rows[0][f"peak_{name}"].to_pylist()), profile.peak_NC)
        assert rows[0][f"firing_{name}"].to_pylist() == profile.firing_NC.tolist()


def test_peaks_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    class Broken(StandInEngine):
        def normalise(self, images_NHWC: torch.Tensor) -> torch.Tensor:
            x_NCHW = super().normalise(images_NHWC)
            x_NCHW[0, 1, 0, 0] = torch.nan
            return x_NCHW

    store, job = make_audit(tmp_path / "job", noise_images(tmp_path, [(40, 40)] * 2), batch_size=2)
    run(store, job, 0, Broken())
    # Units 1, 4, 7, ... of 64 look at the second channel
    assert profiles_of(store, job)["nonfinite"].to_pylist() == [21, 0]


# How it is worked on


def test_out_of_memory_halves_the_batch_and_what_does_not_fit_alone_has_failed(tmp_path: Path) -> None:
    paths = noise_images(tmp_path, [(40, 40)] * 8)
    plenty, job = make_audit(tmp_path / "plenty", paths, batch_size=8)
    run(plenty, job, 0)
    engine = StandInEngine(fits=3)
    store, job = make_audit(tmp_path / "job", paths, batch_size=8)
    run(store, job, 0, engine)
    assert [n for n, _, _ in engine.batches] == [2, 2, 2, 2]
    assert profiles_of(store, job).equals(profiles_of(plenty, job))
    nothing, job = make_audit(tmp_path / "nothing", paths)
    assert run(nothing, job, 0, StandInEngine(fits=0)) == ShardResult(0, 8, 8, committed=True)
    assert set(profiles_of(nothing, job)["error"].to_pylist()) == {"ImageTooLarge"}


def test_a_careful_scan_is_one_image_at_a_time_and_leaves_the_quarantined_alone(tmp_path: Path) -> None:
    paths = noise_images(tmp_path, [(40, 40)] * 4)
    ordinary, job = make_audit(tmp_path / "ordinary", paths)
    run(ordinary, job, 0)
    engine, started = StandInEngine(), list[int | None]()
    store, job = make_audit(tmp_path / "job", paths)
    caution = Caution(frozenset({0}), frozenset({2}), started.append)
    assert run(store, job, 0, engine, caution=caution).n_failed == 1
    assert started == [1, 3, 0, None]
    assert [n for n, _, _ in engine.batches] == [1, 1, 1]
    table = profiles_of(store, job)
    assert table["status"].to_pylist() == ["ok", "ok", "quarantined", "ok"]
    ok = pc.equal(table["status"], "ok")
    assert table.filter(ok).equals(profiles_of(ordinary, job).filter(ok))


def test_a_scan_whose_record_stands_is_not_done_again(tmp_path: Path) -> None:
    paths = noise_images(tmp_path, [(40, 40)] * 3)
    paths[1].write_bytes(b"broken")
    store, job = make_audit(tmp_path / "job", paths)
    run(store, job, 0)
    engine = StandInEngine()
    assert run(store, job, 0, engine) == ShardResult(0, 3, 1, committed=False)
    assert engine.batches == []


def test_a_scan_that_the_audit_does_not_have_is_refused(tmp_path: Path) -> None:
    store, job = make_audit(tmp_path / "job", noise_images(tmp_path, [(40, 40)]))
    for assignment in (Assignment(-1), Assignment(1), Assignment(0, attempt=1)):
        with pytest.raises(JobError, match="shards 0 to 0"):
            run_scan(store, job, assignment, StandInEngine(), LIMITS, lambda *_: None)
