"""What does not fit the memory of the device, and a network that breaks its promise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.unit.shards import SMALL, objects_of, run
from tests.unit.standin import Ascent, Reconstruction, StandInEngine, make_job, noise_images
from worker.contract.errors import DeconvoyError
from worker.contract.jobs import Request
from worker.pipeline import ShardResult, compact
from worker.storage import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "job")


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
    assert run(store, make_job(store, paths, request, batch_size=8), engine).committed
    assert {n for n, _, _ in engine.batches} == {2}  # 8 did not fit, nor did 4
    assert sum(n for n, _, _ in engine.batches) == 20
    plenty = open_store(tmp_path / "plenty")
    run(plenty, make_job(plenty, paths, request, batch_size=8))
    assert objects_of(store, "recon/") == objects_of(plenty, "recon/")


def test_what_does_not_fit_on_the_way_down_is_halved_too(store: Store, tmp_path: Path) -> None:
    class Heavy(StandInEngine):
        def project_down(self, ascent: Ascent) -> list[Reconstruction]:
            if len(ascent.x_NCHW) > 3:
                raise torch.OutOfMemoryError
            return super().project_down(ascent)

    engine = Heavy()
    request = Request(specs=("pool1:all",), preprocessing=SMALL)
    job = make_job(store, noise_images(tmp_path, [(40, 40)] * 8), request, batch_size=8)
    assert run(store, job, engine) == ShardResult(0, 8, 0, committed=True)
    assert [n for n, _, _ in engine.batches] == [8, 4, 2, 2, 2, 2]


def test_images_that_do_not_fit_alone_are_failed_rows_that_say_so(store: Store, tmp_path: Path) -> None:
    paths = noise_images(tmp_path, [(40, 40)] * 5)
    job = make_job(store, paths, Request(specs=("pool1:all",), preprocessing=SMALL))
    assert run(store, job, StandInEngine(fits=0)) == ShardResult(0, 5, 5, committed=True)
    rows = compact(store, job).table.to_pylist()
    assert [row["image"] for row in rows] == [str(path) for path in paths]
    assert {row["error"] for row in rows} == {"ImageTooLarge"}
    assert all("out of memory on cpu with this image alone, 32 x 32" in row["message"] for row in rows)
    assert all(row["source_sha256"] for row in rows)


def test_another_runtime_error_is_no_lack_of_memory(store: Store, tmp_path: Path) -> None:
    job = make_job(store, noise_images(tmp_path, [(40, 40)] * 5), Request(preprocessing=SMALL))
    engine = StandInEngine(fits=0, too_large=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        run(store, job, engine)


def test_a_network_that_breaks_its_promise_is_caught(store: Store, tmp_path: Path) -> None:
    job = make_job(
        store,
        noise_images(tmp_path, [(40, 40)] * 4),
        Request(specs=("pool1:all", "pool1:max"), preprocessing=SMALL),
    )

    class Forgetful(StandInEngine):
        def project_down(self, ascent: Ascent) -> list[Reconstruction]:
            return super().project_down(ascent)[:-1]

    class Disordered(StandInEngine):
        def project_down(self, ascent: Ascent) -> list[Reconstruction]:
            return super().project_down(ascent)[::-1]

    for engine in (Forgetful(), Disordered()):
        with pytest.raises(DeconvoyError, match="another order or number"):
            run(store, job, engine)
