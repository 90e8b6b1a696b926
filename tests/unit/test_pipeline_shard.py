"""A shard from manifest to record: right values, every outcome a row, and an end to every thread."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as F

from tests.photographs import photographs
from tests.unit.standin import RADIUS, StandInEngine, Weights, make_job, noise_images
from worker.contract import keys, records
from worker.contract.errors import DeconvoyError, JobError, ObjectNotFound, StorageFull
from worker.contract.jobs import Job, Preprocessing, Request
from worker.pipeline import Limits, ShardResult, compact, missing_shards, run_shard, source, stage_seconds
from worker.pipeline.picture import display
from worker.pipeline.stages import STAGES
from worker.pipeline.writing import MAX_IMAGES
from worker.storage import Store, open_store

LIMITS = Limits(max_image_bytes=10_000_000, max_image_pixels=2_000_000)
SMALL = Preprocessing(size_px=32)
FIT = Preprocessing(resize="fit", size_px=96)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "job")


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("deconvoy")] == []


def _run(
    store: Store,
    job: Job,
    engine: StandInEngine | None = None,
    *,
    shard: int = 0,
    limits: Limits = LIMITS,
    on_image: Callable[[int, int], None] = lambda *_: None,
) -> ShardResult:
    return run_shard(store, job, shard, engine or StandInEngine(), limits, on_image)


def _record(store: Store, shard: int = 0) -> pa.Table:
    key = keys.shard_key(shard)
    return records.from_parquet(store.read(key), key)


def _rows(store: Store, shard: int = 0) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _record(store, shard).to_pylist()
    return rows


def _objects(store: Store, prefix: str = "") -> dict[str, bytes]:
    return {key: store.read(key) for key in store.list(prefix)}


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


# What comes out


def test_rows_and_arrays_hold_what_the_network_computed(store: Store) -> None:
    paths = photographs()[:3]
    request = Request(specs=("pool2:all", "pool3:max", "conv1_1:unit:5,1", "relu1_1:top:2"), format="npy")
    assert _run(store, make_job(store, paths, request)) == ShardResult(0, 3, 0, committed=True)
    rows = _rows(store)
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
    _run(store, make_job(store, [path], request))
    x_CHW, _ = _network_input(path)
    for row in _rows(store):
        window_CHW = x_CHW[:, row["top"] : row["bottom"], row["left"] : row["right"]]
        expected_HWC, scale = display(window_CHW, (58.395, 57.12, 57.375))
        with Image.open(io.BytesIO(store.read(row["key"]))) as picture:
            difference = np.abs(np.asarray(picture.convert("RGB")).astype(int) - expected_HWC)
        assert difference.max() <= 1  # rounding of a value computed in another order
        assert row["scale"] == pytest.approx(scale, rel=1e-5)
        assert row["key"].endswith(f".{picture_format}")


def test_the_input_is_kept_as_the_network_saw_it(store: Store) -> None:
    path = photographs()[0]
    _run(store, make_job(store, [path], Request(specs=("pool1:max",))))
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
    result = _run(store, job, on_image=lambda done, failed: progress.append((done, failed)))
    assert result == ShardResult(0, 9, 5, committed=True)
    rows = _rows(store)
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
    assert _run(store, job) == ShardResult(0, 9, 5, committed=False)


def test_a_shard_of_bad_images_alone_is_a_record_too(store: Store) -> None:
    job = make_job(store, ["/nowhere/1.jpg", "/nowhere/2.jpg"], Request(specs=("pool1:max",)))
    assert _run(store, job) == ShardResult(0, 2, 2, committed=True)
    assert [row["status"] for row in _rows(store)] == ["failed", "failed"]


def test_rows_stand_in_the_manifests_order_whatever_the_sizes(store: Store, tmp_path: Path) -> None:
    sizes = [(50 + 7 * (n % 5), 90 - 11 * (n % 3)) for n in range(60)]
    paths = noise_images(tmp_path, sizes)
    engine = StandInEngine()
    request = Request(specs=("pool2:max", "pool1:all", "conv1_1:unit:9,2"), preprocessing=FIT)
    _run(store, make_job(store, paths, request, batch_size=3), engine)
    rows = _rows(store)
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
        _run(store, make_job(store, paths, request, batch_size=4), engine)
        runs.append((engine.batches, _objects(store, "recon/"), _objects(store, "inputs/")))
    assert runs[0] == runs[1]
    assert len(runs[0][1]) == 40 * 4


def test_an_image_that_stands_twice_has_rows_twice(store: Store, tmp_path: Path) -> None:
    (path,) = noise_images(tmp_path, [(40, 40)])
    job = make_job(store, [path, path], Request(specs=("pool1:all",), preprocessing=SMALL))
    assert _run(store, job) == ShardResult(0, 2, 0, committed=True)
    assert len(_rows(store)) == 2


def test_stage_seconds_and_weights_stand_in_the_record(store: Store, tmp_path: Path) -> None:
    job = make_job(store, noise_images(tmp_path, [(40, 40)] * 5), Request(preprocessing=SMALL))
    _run(store, job, StandInEngine(weights=Weights("a name", "f" * 64)))
    metadata = _record(store).schema.metadata
    seconds = json.loads(metadata[records.STAGES_METADATA])
    assert list(seconds) == list(STAGES)
    assert all(value > 0 for value in seconds.values())
    assert metadata[records.WEIGHTS_METADATA] == b"a name " + b"f" * 64


def test_an_animation_says_which_frame_was_taken(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "moving.gif"
    frames = [Image.new("L", (40, 40), grey) for grey in (0, 100, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    _run(store, make_job(store, [path], Request(specs=("pool1:max",), preprocessing=SMALL)))
    assert _rows(store)[0]["message"] == "first frame of 3"


# Commits


def test_a_shard_whose_record_stands_is_not_worked_on(store: Store, tmp_path: Path) -> None:
    job = make_job(store, noise_images(tmp_path, [(40, 40)]), Request(specs=("pool1:max",)))
    _run(store, job)
    before = _objects(store)
    engine = StandInEngine()
    assert _run(store, job, engine) == ShardResult(0, 1, 0, committed=False)
    assert engine.batches == []
    assert _objects(store) == before


def test_of_two_workers_on_one_shard_one_commits_and_the_pictures_are_the_same(
    store: Store, tmp_path: Path
) -> None:
    paths = noise_images(tmp_path, [(60 + n % 3, 40) for n in range(30)])
    job = make_job(store, paths, Request(specs=("pool1:all", "pool1:max"), preprocessing=FIT), batch_size=4)
    alone = open_store(tmp_path / "alone")
    _run(alone, make_job(alone, paths, job.request, batch_size=4))

    both = threading.Barrier(2)

    class MeetingEngine(StandInEngine):
        def project(self, x_NCHW: torch.Tensor, specs: Any) -> Any:
            if not self.batches:
                both.wait(30)  # neither has looked for the record before the other is at work
            return super().project(x_NCHW, specs)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: _run(store, job, MeetingEngine()), range(2)))
    assert sorted(result.committed for result in results) == [False, True]
    assert _objects(store, "recon/") == _objects(alone, "recon/")
    assert list(store.list(keys.SHARDS)) == [keys.shard_key(0)]
    assert len(_rows(store)) == 60


# Bounds


class _WrappedStore:
    """A real store, with something done before every write."""

    def __init__(self, store: Store, before_write: Callable[[str], None]) -> None:
        self._store = store
        self._before_write = before_write
        self.place = store.place

    def read(self, key: str) -> bytes:
        return self._store.read(key)

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        self._before_write(key)
        return self._store.write(key, data, if_absent=if_absent)

    def exists(self, key: str) -> bool:
        return self._store.exists(key)

    def list(self, prefix: str) -> Iterator[str]:
        return self._store.list(prefix)


def _pause() -> None:
    """A write that takes its time: the tests hold for any length of it."""
    time.sleep(0.002)


def test_a_slow_store_slows_the_readers_and_not_the_memory(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given 500 images of three sizes, and a store slower than everything else
    paths = noise_images(tmp_path, [(32, 32 + n % 3) for n in range(500)])
    request = Request(specs=("pool1:all",), preprocessing=Preprocessing(resize="fit", size_px=34))
    n_read = n_finished = peak = 0
    lock = threading.Lock()
    really_read = source.read_image

    def counting_read(image: str, max_bytes: int) -> bytes:
        nonlocal n_read, peak
        with lock:
            n_read += 1
            peak = max(peak, n_read - n_finished)
        return really_read(image, max_bytes)

    def on_image(done: int, _: int) -> None:
        nonlocal n_finished
        with lock:
            n_finished = done

    monkeypatch.setattr("worker.pipeline.loading.read_image", counting_read)
    slow = _WrappedStore(store, lambda _: _pause())
    # When the shard is worked through in batches of 4
    job = make_job(store, paths, request, batch_size=4)
    assert _run(slow, job, on_image=on_image).n_images == 500
    # Then what is in flight is what may be ahead (8 and the one asked for), pending (16), in the
    # network (4) or waiting to be written; and the store was in fact what all waited for.
    assert MAX_IMAGES < peak <= 9 + 16 + 4 + MAX_IMAGES


def test_reconstructions_that_wait_are_bounded_by_memory_too(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given room for the reconstructions of two images (3 x 32 x 32 float32 each)
    monkeypatch.setattr("worker.pipeline.writing.MAX_BYTES", 2 * 4 * 3 * 32 * 32)
    writing: set[str] = set()
    most = 0
    lock = threading.Lock()

    def before_write(key: str) -> None:
        nonlocal most
        with lock:
            writing.add(Path(key).stem)
            most = max(most, len(writing))
        _pause()
        if key.startswith("inputs/"):  # an image's last object
            with lock:
                writing.discard(Path(key).stem)

    job = make_job(
        store, noise_images(tmp_path, [(40, 40)] * 30), Request(specs=("pool1:all",), preprocessing=SMALL)
    )
    assert _run(_WrappedStore(store, before_write), job).n_images == 30
    assert 1 <= most <= 2


# Ends


def test_a_full_disk_ends_the_shard_at_once_and_leaves_no_record(store: Store, tmp_path: Path) -> None:
    def full(key: str) -> None:
        raise StorageFull("no space is left")

    paths = noise_images(tmp_path, [(40, 40)] * 200)
    job = make_job(store, paths, Request(specs=("pool1:all",), preprocessing=SMALL), batch_size=4)
    engine = StandInEngine()
    with pytest.raises(StorageFull, match="no space"):
        _run(_WrappedStore(store, full), job, engine)
    # Not one more image than may wait to be written was computed.
    assert sum(n for n, _, _ in engine.batches) <= MAX_IMAGES + 4
    assert missing_shards(store, job) == [0]


def test_a_fault_of_the_code_in_any_stage_is_raised_as_it_is(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(
        store, noise_images(tmp_path, [(40, 40)] * 50), Request(specs=("pool1:all",), preprocessing=SMALL)
    )

    def fault(*_: object) -> Any:
        raise ZeroDivisionError("a fault")

    places = ["loading.read_image", "loading.decode_image", "loading.preprocess", "writing.encode"]
    in_network = f"{StandInEngine.__module__}._reconstructions"
    for place in [*(f"worker.pipeline.{place}" for place in places), in_network]:
        with monkeypatch.context() as patch:
            patch.setattr(place, fault)
            with pytest.raises(ZeroDivisionError):
                _run(store, job)
    with pytest.raises(ZeroDivisionError):
        _run(store, job, on_image=fault)
    assert missing_shards(store, job) == [0]
    assert _run(store, job).committed


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_while_computing_ends_all_threads(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupt: type[BaseException]
) -> None:
    job = make_job(
        store, noise_images(tmp_path, [(40, 40)] * 50), Request(specs=("pool1:all",), preprocessing=SMALL)
    )

    def interrupted(*_: object) -> Any:
        raise interrupt

    monkeypatch.setattr(StandInEngine, "project", interrupted)
    with pytest.raises(interrupt):
        _run(store, job)
    assert missing_shards(store, job) == [0]


def test_a_time_limit_that_strikes_while_waiting_ends_all_threads(store: Store, tmp_path: Path) -> None:
    # Given a store that hangs until the shard is told to end; a soft time limit tells it by a signal
    class TimeLimit(Exception):
        pass

    told = threading.Event()
    first = threading.Lock()
    main_thread = threading.get_ident()

    def strike(*_: object) -> None:
        told.set()
        raise TimeLimit

    before = signal.signal(signal.SIGUSR1, strike)

    def hang(key: str) -> None:
        with first:
            if not told.is_set():
                # To the main thread itself: a signal elsewhere would not wake it.
                signal.pthread_kill(main_thread, signal.SIGUSR1)
                told.wait(30)

    job = make_job(
        store, noise_images(tmp_path, [(40, 40)] * 100), Request(specs=("pool1:all",), preprocessing=SMALL)
    )
    try:
        with pytest.raises(TimeLimit):
            _run(_WrappedStore(store, hang), job)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert missing_shards(store, job) == [0]


# Memory of the device


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_batch_and_goes_on(tmp_path: Path, error: Exception, store: Store) -> None:
    paths = noise_images(tmp_path, [(40, 40)] * 20)
    request = Request(specs=("pool1:all", "pool1:top:2"), preprocessing=SMALL)
    engine = StandInEngine(fits=3, too_large=error)
    assert _run(store, make_job(store, paths, request, batch_size=8), engine).committed
    assert {n for n, _, _ in engine.batches} == {2}  # 8 did not fit, nor did 4
    assert sum(n for n, _, _ in engine.batches) == 20
    plenty = open_store(tmp_path / "plenty")
    _run(plenty, make_job(plenty, paths, request, batch_size=8))
    assert _objects(store, "recon/") == _objects(plenty, "recon/")


def test_images_that_do_not_fit_alone_are_failed_rows_that_say_so(store: Store, tmp_path: Path) -> None:
    paths = noise_images(tmp_path, [(40, 40)] * 5)
    job = make_job(store, paths, Request(specs=("pool1:all",), preprocessing=SMALL))
    assert _run(store, job, StandInEngine(fits=0)) == ShardResult(0, 5, 5, committed=True)
    rows = compact(store, job).to_pylist()
    assert [row["image"] for row in rows] == [str(path) for path in paths]
    assert {row["error"] for row in rows} == {"ImageTooLarge"}
    assert all("out of memory on cpu with this image alone, 32 x 32" in row["message"] for row in rows)
    assert all(row["source_sha256"] for row in rows)


def test_another_runtime_error_is_no_lack_of_memory(store: Store, tmp_path: Path) -> None:
    job = make_job(store, noise_images(tmp_path, [(40, 40)] * 5), Request(preprocessing=SMALL))
    engine = StandInEngine(fits=0, too_large=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        _run(store, job, engine)


def test_a_network_that_breaks_its_promise_is_caught(store: Store, tmp_path: Path) -> None:
    job = make_job(
        store,
        noise_images(tmp_path, [(40, 40)] * 4),
        Request(specs=("pool1:all", "pool1:max"), preprocessing=SMALL),
    )

    class Forgetful(StandInEngine):
        def project(self, x_NCHW: torch.Tensor, specs: Sequence[Any]) -> Any:
            return super().project(x_NCHW, specs)[:-1]

    class Disordered(StandInEngine):
        def project(self, x_NCHW: torch.Tensor, specs: Sequence[Any]) -> Any:
            return super().project(x_NCHW, specs)[::-1]

    for engine in (Forgetful(), Disordered()):
        with pytest.raises(DeconvoyError, match="another order or number"):
            _run(store, job, engine)


# Jobs


def test_a_layout_or_shard_that_cannot_be_worked_on_is_refused(store: Store, tmp_path: Path) -> None:
    paths = noise_images(tmp_path, [(40, 40)])
    with pytest.raises(JobError, match="layout tar is not supported"):
        _run(store, make_job(store, paths, Request(layout="tar")))
    job = make_job(store, paths, Request())
    for shard in (-1, 1):
        with pytest.raises(JobError, match="shards 0 to 0"):
            _run(store, job, shard=shard)
    with pytest.raises(ObjectNotFound, match="manifest"):
        _run(open_store(tmp_path / "elsewhere"), job)


def test_the_index_joins_all_shards_in_order(store: Store, tmp_path: Path) -> None:
    paths: list[Path | str] = [*noise_images(tmp_path, [(40, 40)] * 10)]
    paths[4] = "/nowhere/gone.png"
    request = Request(specs=("pool2:all", "pool1:top:2"), preprocessing=SMALL)
    job = make_job(store, paths, request, shard_size=4)
    assert missing_shards(store, job) == [0, 1, 2]
    for shard in (2, 0):
        _run(store, job, shard=shard)
    assert missing_shards(store, job) == [1]
    for early in (compact, stage_seconds):
        with pytest.raises(JobError, match="1 of 3 shards are not done, the first is 1"):
            early(store, job)
    _run(store, job, shard=1)
    assert missing_shards(store, job) == []
    table = compact(store, job)
    expected = []
    for number, path in enumerate(paths):
        # A failed image has a row for each spec, a good one a row for each unit.
        specs = ["pool2:all", "pool1:top:2"] if number == 4 else ["pool2:all", "pool1:top:2", "pool1:top:2"]
        expected += [(str(path), spec, number // 4) for spec in specs]
    assert [(row["image"], row["spec"], row["shard"]) for row in table.to_pylist()] == expected
    assert records.from_parquet(store.read(keys.INDEX), keys.INDEX).equals(table)
    # The seconds of the job are the sum of its shards'.
    total = stage_seconds(store, job)
    assert list(total) == list(STAGES)
    by_shard = [json.loads(_record(store, n).schema.metadata[records.STAGES_METADATA]) for n in range(3)]
    assert total == {stage: pytest.approx(sum(one[stage] for one in by_shard)) for stage in STAGES}
    # Once more gives the same file.
    before = store.read(keys.INDEX)
    compact(store, job)
    assert store.read(keys.INDEX) == before


def test_shards_of_different_weights_are_not_joined(store: Store, tmp_path: Path) -> None:
    job = make_job(store, noise_images(tmp_path, [(40, 40)] * 2), Request(specs=("pool1:max",)), shard_size=1)
    _run(store, job, StandInEngine(weights=Weights("/a/net.pth", "a" * 64)), shard=0)
    _run(store, job, StandInEngine(weights=Weights("/b/net.pth", "b" * 64)), shard=1)
    with pytest.raises(JobError, match=r"different weights \(/a/net.pth a+ and /b/net.pth b+\)"):
        compact(store, job)
