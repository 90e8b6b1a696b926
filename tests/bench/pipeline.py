"""What the pipeline adds to the work itself, and whether a worker grows. S3 is Moto's, in its own process."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
import torch
from PIL import Image

from tests.bench.measure import OURS, Ratio, interleaved, seconds
from tests.bench.parts import Disagreement, Row
from tests.bench.pipeline_floor import Floor, jpegs
from tests.bench.setting import Setting
from tests.s3_server import environment_for
from tests.unit.standin import Normalisation, StandInEngine, Weights, make_job
from worker.contract import keys, records
from worker.contract.jobs import Job, Layout, Preprocessing, Request
from worker.contract.specs import DEFAULT_SPECS, LayerSpec
from worker.deconv import Reconstruction
from worker.display import display
from worker.pipeline import Assignment, Engine, Limits, run_shard
from worker.pipeline.batches import BatchSizes
from worker.pipeline.preprocess import preprocess
from worker.storage import Store, open_store

SPECS = ("pool5:max", "pool5:all")
BATCH = 32
"""As many images as go forward together on a GPU."""
FLOOR = "Pillow and boto3 alone"
FLOOR_THREADS = (2, 4, 8, 16)
ENGINE = "the engine alone"
N_SHARDS = 10
"""In which the images are worked through that a worker's memory is watched over."""

_LIMITS = Limits(max_image_bytes=2**28, max_image_pixels=10**8)
_BUCKET = "bench"
_N_READY = 6
_SERVER = """
import sys
from tests.s3_server import moto_server
with moto_server() as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class Growth:
    """Memory of a process that works through shards from S3 to S3, after each of them."""

    n_images: int
    rss_mib: tuple[float, ...]

    @property
    def from_second_mib(self) -> float:
        """The first shard fills caches and pools; what comes after the second is growth."""
        return self.rss_mib[-1] - self.rss_mib[1]


@dataclass
class AtOnce:
    """An engine that takes no time: each image gets the reconstructions that lie ready for its number."""

    ready: Sequence[Sequence[Reconstruction]]
    weights: Weights = field(default_factory=Weights)
    normalisation: Normalisation = field(default_factory=Normalisation)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _n_done: int = 0

    def normalise(self, images_NHWC: torch.Tensor) -> torch.Tensor:
        return images_NHWC

    def forward(self, x_NCHW: torch.Tensor, _specs: Sequence[str | LayerSpec]) -> range:
        first, self._n_done = self._n_done, self._n_done + len(x_NCHW)
        return range(first, self._n_done)

    def project_down(self, ascent: range) -> list[Reconstruction]:
        return [
            replace(reconstruction, image=image)
            for image, number in enumerate(ascent)
            for reconstruction in self.ready[number % len(self.ready)]
        ]


def ratios(setting: Setting, n_images: int) -> Iterator[Row]:
    """From S3 to S3 with `n_images`, and with the real trunk, which takes its time, a tenth of them."""
    yield from from_s3_to_s3(setting, n_images)
    yield from real_trunk(setting, max(1, n_images // 10))


def from_s3_to_s3(setting: Setting, n_images: int) -> Iterator[Row]:
    """A shard in each layout against its floor, with an engine that answers at once."""
    ready = _reconstructions(setting)
    with s3_server() as client:
        sources = [f"in/{number}.jpg" for number in range(n_images)]
        for key, data in zip(sources, jpegs(n_images), strict=True):
            client.put_object(Bucket=_BUCKET, Key=key, Body=data)
        floor = _best_floor(setting, client, sources, ready)
        for layout in ("files", "tar"):
            yield _against_floor(setting, floor, ready, layout)


def real_trunk(setting: Setting, n_images: int) -> Iterator[Row]:
    """A shard from folder to folder, against the engine on the same batches, prepared beforehand."""
    size_px = setting.x_NCHW.shape[2]
    preprocessing = Preprocessing(size_px=size_px)
    with tempfile.TemporaryDirectory() as folder:
        images = []
        for number, data in enumerate(jpegs(n_images)):
            images.append(Path(folder, f"{number}.jpg"))
            images[-1].write_bytes(data)
        prepared_NHWC = torch.from_numpy(
            np.stack([preprocess(Image.open(path), preprocessing).pixels_HWC for path in images])
        )
        for case, specs in (("pool5:all", ("pool5:all",)), ("the article's ten", DEFAULT_SPECS)):
            ratio = _against_engine(setting, folder, images, specs, prepared_NHWC)
            yield Row("pipeline", f"{n_images} x {case}", ENGINE, ratio, None)


def growth(n_images: int) -> Growth:
    """Memory after each of ten shards of small images, in a process that does nothing else."""
    shard_size = n_images // N_SHARDS
    spawn = multiprocessing.get_context("spawn")
    with s3_server() as client, ProcessPoolExecutor(1, mp_context=spawn) as process:
        pixels_HWC = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        for number in range(shard_size):
            buffer = io.BytesIO()
            Image.fromarray(np.roll(pixels_HWC, number, axis=1)).save(buffer, "PNG")
            client.put_object(Bucket=_BUCKET, Key=f"in/{number}.png", Body=buffer.getvalue())
        images = [f"s3://{_BUCKET}/in/{number}.png" for number in range(shard_size)]
        rss = process.submit(_rss_after_each, images).result()
    return Growth(N_SHARDS * shard_size, tuple(rss))


@contextmanager
def s3_server() -> Iterator[Any]:
    """An S3 server with a bucket, in a process of its own; yields the client that all of this process use."""
    from worker.storage.client import s3_client

    command = [sys.executable, "-c", _SERVER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        with mock.patch.dict(os.environ, environment_for(url)):
            client = s3_client()
            client.create_bucket(Bucket=_BUCKET)
            yield client
            client.close()
        server.stdin.close()


def _rss_after_each(images: Sequence[str]) -> list[float]:
    store = open_store(f"s3://{_BUCKET}/out")
    request = Request(specs=("pool1:max",), preprocessing=Preprocessing(size_px=32))
    job = make_job(store, list(images) * N_SHARDS, request, shard_size=len(images), batch_size=BATCH)
    engine = StandInEngine()
    rss = []
    for shard in range(N_SHARDS):
        run_shard(store, job, Assignment(shard), engine, _LIMITS, lambda *_: None)
        rss.append(psutil.Process().memory_info().rss / 2**20)
    return rss


def _against_floor(
    setting: Setting, floor: Floor, ready: Sequence[Sequence[Reconstruction]], layout: Layout
) -> Row:
    request = Request(specs=SPECS, preprocessing=Preprocessing(size_px=floor.size_px), layout=layout)
    images = [f"s3://{_BUCKET}/{key}" for key in floor.sources]
    store = open_store(f"s3://{_BUCKET}/{layout}")
    job = make_job(store, images, request, batch_size=BATCH)

    def ours() -> None:
        # Like the floor it writes over what the round before has left.
        floor.client.delete_object(Bucket=_BUCKET, Key=f"{layout}/{keys.shard_key(0)}")
        _work(store, job, AtOnce(ready))

    work: Callable[[str], None] = floor.to_files if layout == "files" else floor.to_tar
    ours()
    _check_same_pictures(floor, store)
    rounds = interleaved(
        lambda: {OURS: seconds(ours), FLOOR: seconds(lambda: work(f"floor-{layout}"))}, quick=setting.quick
    )
    return Row(
        "pipeline", f"{len(images)} S3 to S3, {layout}", FLOOR, Ratio.of(rounds, FLOOR), difference=0.0
    )


def _against_engine(
    setting: Setting, folder: str, images: Sequence[Path], specs: Sequence[str], prepared_NHWC: torch.Tensor
) -> Ratio:
    size_px = prepared_NHWC.shape[1]
    request = Request(specs=tuple(specs), preprocessing=Preprocessing(size_px=size_px))
    store = open_store(Path(folder, "out"))
    job = make_job(store, images, request)
    n_batch = BatchSizes(job, setting.net.device.type).of(size_px, size_px)

    def ours() -> None:
        Path(folder, "out", keys.shard_key(0)).unlink(missing_ok=True)
        _work(store, job, setting.net)

    def alone() -> None:
        for images_NHWC in torch.split(prepared_NHWC, n_batch):
            net = setting.net
            net.project_down(net.forward(net.normalise(images_NHWC), specs))

    rounds = interleaved(lambda: {OURS: seconds(ours), ENGINE: seconds(alone)}, quick=setting.quick)
    return Ratio.of(rounds, ENGINE)


def _check_same_pictures(floor: Floor, store: Store) -> None:
    """Both sides must have made the same bytes of the first and the last image."""
    record = keys.shard_key(0)
    rows = records.from_parquet(store.read(record), record)["sha256"].to_pylist()
    for number in (0, len(floor.sources) - 1):
        *pictures, _ = floor.encoded(number)
        theirs = [hashlib.sha256(data).hexdigest() for _, data in pictures]
        if rows[number * len(SPECS) : (number + 1) * len(SPECS)] != theirs:
            raise Disagreement(f"image {number}: the floor makes other pictures; a ratio would mean nothing")


def _reconstructions(setting: Setting) -> list[list[Reconstruction]]:
    """What the network makes of a few photographs: for the engine that answers at once."""
    preprocessing = Preprocessing(size_px=setting.x_NCHW.shape[2])
    images_NHWC = torch.from_numpy(
        np.stack(
            [preprocess(Image.open(io.BytesIO(data)), preprocessing).pixels_HWC for data in jpegs(_N_READY)]
        )
    )
    results = setting.net.project(setting.net.normalise(images_NHWC), SPECS)
    return [[one for one in results if one.image == image] for image in range(_N_READY)]


def _best_floor(
    setting: Setting, client: Any, sources: Sequence[str], ready: Sequence[Sequence[Reconstruction]]
) -> Floor:
    """The floor with as many threads as suit it best."""
    std_C = Normalisation().pixel_std_C
    drawn = [[display(one.pixels_CHW.numpy(), std_C)[0] for one in results] for results in ready]
    size_px = setting.x_NCHW.shape[2]
    few = sources[: 4 * max(FLOOR_THREADS)]
    took = {
        n: seconds(lambda: Floor(client, _BUCKET, few, size_px, drawn, n).to_files("floor"))  # noqa: B023 (called at once)
        for n in FLOOR_THREADS
    }
    return Floor(client, _BUCKET, sources, size_px, drawn, min(took, key=took.__getitem__))


def _work(store: Store, job: Job, engine: Engine) -> None:
    result = run_shard(store, job, Assignment(0), engine, _LIMITS, lambda *_: None)
    if result.n_failed or not result.committed:
        raise Disagreement(f"{result.n_failed} of {result.n_images} images failed")
