"""However a shard ends, all its threads end, and no record is left of what is not done."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.unit.shards import SMALL, WrappedStore, run
from tests.unit.standin import StandInEngine, make_job, noise_images
from worker.contract.errors import StorageFull
from worker.contract.jobs import Request
from worker.pipeline.writing import MAX_IMAGES
from worker.storage import Store, open_store
from worker.storage.standing import still_to_do


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "job")


def test_a_full_disk_ends_the_shard_at_once_and_leaves_norecord_of(store: Store, tmp_path: Path) -> None:
    def full(key: str) -> None:
        raise StorageFull("no space is left")

    paths = noise_images(tmp_path, [(40, 40)] * 200)
    job = make_job(store, paths, Request(specs=("pool1:all",), preprocessing=SMALL), batch_size=4)
    engine = StandInEngine()
    with pytest.raises(StorageFull, match="no space"):
        run(WrappedStore(store, full), job, engine)
    # Not one more image than may wait to be written was computed.
    assert sum(n for n, _, _ in engine.batches) <= MAX_IMAGES + 4
    assert still_to_do(store, job).shards == [0]


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
                run(store, job)
    with pytest.raises(ZeroDivisionError):
        run(store, job, on_image=fault)
    assert still_to_do(store, job).shards == [0]
    assert run(store, job).committed


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_while_computing_ends_all_threads(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupt: type[BaseException]
) -> None:
    job = make_job(
        store, noise_images(tmp_path, [(40, 40)] * 50), Request(specs=("pool1:all",), preprocessing=SMALL)
    )

    def interrupted(*_: object) -> Any:
        raise interrupt

    monkeypatch.setattr(StandInEngine, "project_down", interrupted)
    with pytest.raises(interrupt):
        run(store, job)
    assert still_to_do(store, job).shards == [0]


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
            run(WrappedStore(store, hang), job)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert still_to_do(store, job).shards == [0]
