"""A shard from manifest to record: right values, every outcome a row, one commit."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as F

from tests.photographs import photographs
from tests.unit.shards import FIT, LIMITS, SMALL, objects_of, record_of, rows_of, run
from tests.unit.standin import RADIUS, Ascent, StandInEngine, Weights, make_job, noise_images
from worker.contract import keys, records
from worker.contract.errors import JobError, ObjectNotFound
from worker.contract.jobs import Request
from worker.contract.stages import STAGES
from worker.display import display
from worker.pipeline import Assignment, ShardResult, run_shard
from worker.storage import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "job")


def _network_input(path: Path) -> tuple[npt.NDArray[np.float32], tuple[int, int]]:
    """What VGG gets of a photograph, by torchvision's own functions: CHW, and the source's size."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    resized = F.resize(rgb, [256], F.InterpolationMode.BILINEAR, antialias=True)
    values = F.to_tensor(F.center_crop(resized, [224]))
    x_CHW: torch.Tensor = F.normalize(values, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    return x_CHW.numpy(), rgb.size


def _stored_array(store: Store, key: str) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = np.load(io.BytesIO(store.read(key)))
    return array


def test_rows_and_arrays_hold_what_the_network_computed(store: Store) -> None:
    paths = photographs()[:3]
    request = Request(specs=("pool2:all", "pool3:max", "conv1_1:unit:5,1", "relu1_1:top:2"), format="npy")
    assert run(store, make_job(store, paths, request)) == ShardResult(0, 3, 0, committed=True)
    rows = rows_of(store)
    assert len(rows) == 3 * 6
    for number, path in enumerate(paths):
        x_CHW, (source_width, source_height) = _network_input(path)
        whole, strongest, unit5, unit1, first, second = rows[number * 6 : (number + 1) * 6]
        # all: twice the input (pool2 is in the second block), at no place and of no unit
        np.testing.assert_allclose(_stored_array(store, whole["key"]), 2 * x_CHW, atol=1e-4)
        assert [whole[name] for name in ("unit", "y", "x", "activation")] == [None] * 4
        assert [whole[name] for name in ("left", "top", "right", "bottom")] == [0, 0, 224, 224]
        # the others: unit u is channel u % 3 times 1 + u
        maxima = [x_CHW[unit % 3].max() * (1 + unit) for unit in range(256)]
        assert strongest["unit"] == int(np.argmax(maxima))
        of_64 = sorted(range(64), key=lambda unit: -maxima[unit])
        assert [row["unit"] for row in (unit5, unit1, first, second)] == [5, 1, *of_64[:2]]
        for row in (strongest, unit5, unit1, first, second):
            y, x = row["y"], row["x"]
            assert row["activation"] == pytest.approx(maxima[row["unit"]], rel=1e-5)
            assert x_CHW[row["unit"] % 3, y, x] == x_CHW[row["unit"] % 3].max()
            assert row["left"] == max(x - RADIUS, 0)
            assert row["bottom"] == min(y + RADIUS + 1, 224)
            window_CHW = x_CHW[:, row["top"] : row["bottom"], row["left"] : row["right"]]
            np.testing.assert_allclose(_stored_array(store, row["key"]), window_CHW, atol=1e-4)
            # The window in the photograph: the crop's box is the middle, as wide as 224 of 256.
            scale = min(source_width, source_height) / 256
            assert row["source_box"][2] - row["source_box"][0] == pytest.approx(
                (row["right"] - row["left"]) * scale, rel=0.01
            )
        for row in rows[number * 6 : (number + 1) * 6]:
            assert row["image"] == str(path)
            assert (row["status"], row["error"], row["message"], row["shard"]) == ("ok", None, None, 0)
            assert (row["width"], row["height"]) == (224, 224)
            assert (row["source_width"], row["source_height"]) == (source_width, source_height)
            assert row["source_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
            assert row["sha256"] == hashlib.sha256(store.read(row["key"])).hexdigest()
            assert row["nonfinite"] == 0
            assert row["seconds"] > 0


@pytest.mark.parametrize("picture_format", ["png", "webp"])
def test_pictures_are_drawn_with_the_scale_of_their_row(store: Store, picture_format: str) -> None:
    request = Request.model_validate({"specs": ("pool1:all", "pool1:max"), "format": picture_format})
    path = photographs()[0]
    run(store, make_job(store, [path], request))
    x_CHW, _ = _network_input(path)
    for row in rows_of(store):
        window_CHW = x_CHW[:, row["top"] : row["bottom"], row["left"] : row["right"]]
        expected_HWC, scale = display(window_CHW, (58.395, 57.12, 57.375))
        with Image.open(io.BytesIO(store.read(row["key"]))) as picture:
            difference = np.abs(np.asarray(picture.convert("RGB")).astype(int) - expected_HWC)
        assert difference.max() <= 1  # rounding of a value computed in another order
        assert row["scale"] == pytest.approx(scale, rel=1e-5)
        assert row["key"].endswith(f".{picture_format}")


def test_the_input_is_kept_as_the_network_saw_it(store: Store) -> None:
    path = photographs()[0]
    run(store, make_job(store, [path], Request(specs=("pool1:max",))))
    x_CHW, _ = _network_input(path)
    std_C, mean_C = np.array([[0.229, 0.224, 0.225], [0.485, 0.456, 0.406]])
    seen_CHW = (x_CHW * std_C[:, None, None] + mean_C[:, None, None]) * 255
    with Image.open(io.BytesIO(store.read(keys.input_key(keys.image_key(str(path)))))) as image:
        difference = np.abs(np.asarray(image).astype(float) - seen_CHW.transpose(1, 2, 0))
    assert difference.mean() < 3  # a JPEG of it


def test_a_bad_image_is_failed_rows_and_the_rest_is_done(store: Store, tmp_path: Path) -> None:
    good = noise_images(tmp_path, [(50, 40)] * 4)
    truncated, bomb, thin = tmp_path / "cut.png", tmp_path / "bomb.png", tmp_path / "thin.png"
    truncated.write_bytes(good[0].read_bytes()[:900])
    Image.new("1", (2000, 1001)).save(bomb)
    Image.new("RGB", (300, 3)).save(thin)
    images = [tmp_path / "gone.png", good[0], truncated, good[1], bomb, tmp_path, good[2], thin, good[3]]
    progress: list[tuple[int, int]] = []
    job = make_job(store, images, Request(specs=("pool1:all", "pool2:top:2"), preprocessing=FIT))
    result = run(store, job, on_image=lambda done, failed: progress.append((done, failed)))
    assert result == ShardResult(0, 9, 5, committed=True)
    rows = rows_of(store)
    errors = {row["image"]: row["error"] for row in rows}
    assert errors == {
        str(tmp_path / "gone.png"): "ImageNotFound",
        str(truncated): "ImageUnreadable",
        str(bomb): "ImageTooLarge",
        str(tmp_path): "ImageUnreadable",
        str(thin): "ImageTooSmall",
        **dict.fromkeys(map(str, good)),
    }
    for image in images:
        of_image = [row for row in rows if row["image"] == str(image)]
        if errors[str(image)] is None:
            assert [row["spec"] for row in of_image] == ["pool1:all", "pool2:top:2", "pool2:top:2"]
            assert all(row["status"] == "ok" and store.exists(row["key"]) for row in of_image)
        else:
            assert [row["spec"] for row in of_image] == ["pool1:all", "pool2:top:2"]
            assert all(row["status"] == "failed" and row["message"] and not row["key"] for row in of_image)
    cut_rows = [row for row in rows if row["image"] == str(truncated)]
    assert cut_rows[0]["source_sha256"] == hashlib.sha256(truncated.read_bytes()).hexdigest()
    assert [done for done, _ in progress] == list(range(1, 10))
    assert progress[-1] == (9, 5)
    # The record that stands tells the same.
    assert run(store, job) == ShardResult(0, 9, 5, committed=False)


def test_a_shard_of_bad_images_alone_is_a_record_too(store: Store) -> None:
    job = make_job(store, ["/nowhere/1.jpg", "/nowhere/2.jpg"], Request(specs=("pool1:max",)))
    assert run(store, job) == ShardResult(0, 2, 2, committed=True)
    assert [row["status"] for row in rows_of(store)] == ["failed", "failed"]


def test_rows_stand_in_the_manifests_order_whatever_the_sizes(store: Store, tmp_path: Path) -> None:
    sizes = [(50 + 7 * (n % 5), 90 - 11 * (n % 3)) for n in range(60)]
    paths = noise_images(tmp_path, sizes)
    engine = StandInEngine()
    request = Request(specs=("pool2:max", "pool1:all", "conv1_1:unit:9,2"), preprocessing=FIT)
    run(store, make_job(store, paths, request, batch_size=3), engine)
    rows = rows_of(store)
    assert [(row["image"], row["spec"]) for row in rows] == [
        (str(path), spec)
        for path in paths
        for spec in ("pool2:max", "pool1:all", "conv1_1:unit:9,2", "conv1_1:unit:9,2")
    ]
    assert [row["unit"] for row in rows if row["selection"] == "unit"] == [9, 2] * 60
    assert sum(n for n, _, _ in engine.batches) == 60
    assert max(n for n, _, _ in engine.batches) == 3


def test_the_same_shard_gives_the_same_bytes_every_time(tmp_path: Path) -> None:
    paths = noise_images(tmp_path, [(50 + 9 * (n % 4), 70) for n in range(40)])
    request = Request(specs=("pool1:all", "pool2:top:3"), preprocessing=FIT)
    runs = []
    for name in ("first", "second"):
        store = open_store(tmp_path / name)
        engine = StandInEngine()
        run(store, make_job(store, paths, request, batch_size=4), engine)
        runs.append((engine.batches, objects_of(store, "recon/"), objects_of(store, "inputs/")))
    assert runs[0] == runs[1]
    assert len(runs[0][1]) == 40 * 4


def test_an_image_that_stands_twice_has_rows_twice(store: Store, tmp_path: Path) -> None:
    (path,) = noise_images(tmp_path, [(40, 40)])
    job = make_job(store, [path, path], Request(specs=("pool1:all",), preprocessing=SMALL))
    assert run(store, job) == ShardResult(0, 2, 0, committed=True)
    assert len(rows_of(store)) == 2


def test_stage_seconds_and_weights_stand_in_therecord_of(store: Store, tmp_path: Path) -> None:
    job = make_job(store, noise_images(tmp_path, [(40, 40)] * 5), Request(preprocessing=SMALL))
    run(store, job, StandInEngine(weights=Weights("a name", "f" * 64)))
    metadata = record_of(store).schema.metadata
    seconds = json.loads(metadata[records.STAGES_METADATA])
    assert list(seconds) == list(STAGES)
    assert all(value > 0 for value in seconds.values())
    assert metadata[records.WEIGHTS_METADATA] == b"a name " + b"f" * 64


def test_an_animation_says_which_frame_was_taken(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "moving.gif"
    frames = [Image.new("L", (40, 40), grey) for grey in (0, 100, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    run(store, make_job(store, [path], Request(specs=("pool1:max",), preprocessing=SMALL)))
    assert rows_of(store)[0]["message"] == "first frame of 3"


# Commits


def test_a_shard_whose_record_stands_is_not_worked_on(store: Store, tmp_path: Path) -> None:
    job = make_job(store, noise_images(tmp_path, [(40, 40)]), Request(specs=("pool1:max",)))
    run(store, job)
    before = objects_of(store)
    engine = StandInEngine()
    assert run(store, job, engine) == ShardResult(0, 1, 0, committed=False)
    assert engine.batches == []
    assert objects_of(store) == before


def test_of_two_workers_on_one_shard_one_commits_and_the_pictures_are_the_same(
    store: Store, tmp_path: Path
) -> None:
    paths = noise_images(tmp_path, [(60 + n % 3, 40) for n in range(30)])
    job = make_job(store, paths, Request(specs=("pool1:all", "pool1:max"), preprocessing=FIT), batch_size=4)
    alone = open_store(tmp_path / "alone")
    run(alone, make_job(alone, paths, job.request, batch_size=4))

    both = threading.Barrier(2)

    class MeetingEngine(StandInEngine):
        def forward(self, x_NCHW: torch.Tensor, specs: Sequence[Any]) -> Ascent:
            if not self.batches:
                both.wait(30)  # neither has looked for the record before the other is at work
            return super().forward(x_NCHW, specs)

    with ThreadPoolExecutor(2) as pool:
        work = partial(run_shard, store, job, Assignment(0), MeetingEngine(), LIMITS, lambda *_: None)
        results = [future.result() for future in [pool.submit(work), pool.submit(work)]]
    assert sorted(result.committed for result in results) == [False, True]
    assert objects_of(store, "recon/") == objects_of(alone, "recon/")
    assert list(store.list(keys.SHARDS)) == [keys.shard_key(0)]
    assert len(rows_of(store)) == 60


def test_a_shard_that_cannot_be_worked_on_is_refused(store: Store, tmp_path: Path) -> None:
    job = make_job(store, noise_images(tmp_path, [(40, 40)]), Request())
    for shard in (-1, 1):
        with pytest.raises(JobError, match="shards 0 to 0"):
            run(store, job, shard=shard)
    with pytest.raises(ObjectNotFound, match="manifest"):
        run(open_store(tmp_path / "elsewhere"), job)
