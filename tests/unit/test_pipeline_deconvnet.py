"""The pipeline with the real network, of random weights: what it stores is what the network gives."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.photographs import photographs
from tests.unit.standin import make_job
from worker.contract import keys, records
from worker.contract.jobs import Preprocessing, Request
from worker.deconv import Deconvnet
from worker.pipeline import Assignment, Engine, Limits, ShardResult, run_shard
from worker.pipeline.preprocess import preprocess
from worker.storage import open_store


def test_a_shard_stores_what_the_real_network_gives(tmp_path: Path) -> None:
    network = Deconvnet.load("random:0", device="cpu")
    engine: Engine = network
    paths = photographs()[:2]
    request = Request(
        specs=("pool1:all", "pool3:max", "pool2:top:3", "pool5:unit:7"),
        preprocessing=Preprocessing(size_px=64),
        format="npy",
    )
    store = open_store(tmp_path / "job")
    limits = Limits(max_image_bytes=10_000_000, max_image_pixels=10_000_000)
    job = make_job(store, paths, request)
    assert run_shard(store, job, Assignment(0), engine, limits, lambda *_: None) == ShardResult(
        0, 2, 0, committed=True
    )

    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(preprocess(image.convert("RGB"), request.preprocessing).pixels_HWC)
    expected = network.project(network.normalise(torch.from_numpy(np.stack(images))), request.specs)
    rows = records.from_parquet(store.read(keys.shard_key(0)), "record").to_pylist()
    assert len(rows) == len(expected) == 2 * 6
    for row, reconstruction in zip(rows, expected, strict=True):
        assert row["image"] == str(paths[reconstruction.image])
        assert row["spec"] == str(reconstruction.spec)
        assert (row["unit"], row["y"], row["x"]) == (reconstruction.unit, reconstruction.y, reconstruction.x)
        for side in ("left", "top", "right", "bottom"):
            assert row[side] == getattr(reconstruction.window, side)
        # Near-ties in max-pooling may fall the other way from one run to the next.
        stored_CHW = np.load(io.BytesIO(store.read(row["key"])))
        scale = max(float(reconstruction.pixels_CHW.abs().max()), 1e-12)
        assert np.abs(stored_CHW - reconstruction.pixels_CHW.numpy()).max() / scale < 2e-3
