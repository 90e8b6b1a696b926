"""What is in flight is bounded, whatever is slow and however large the files are."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.shards import SMALL, WrappedStore, record_of, run
from tests.unit.standin import make_job, noise_images
from worker.contract import records
from worker.contract.jobs import Preprocessing, Request
from worker.pipeline import ShardResult, decode, source
from worker.pipeline.layouts import FilesLayout, TarLayout
from worker.pipeline.loading import N_READERS
from worker.pipeline.writing import MAX_IMAGES, Encoder
from worker.storage import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "job")


class _Flow:
    """Counts what has come in and not gone out, and the most of it there ever was."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0

    def comes(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)

    def goes(self) -> None:
        with self._lock:
            self._now -= 1


def _slow_store(store: Store) -> WrappedStore:
    """One write after the other, each of which takes its time: the tests hold for any length of it."""
    one_at_a_time = threading.Lock()

    def before_write(_: str) -> None:
        with one_at_a_time:
            time.sleep(0.002)

    return WrappedStore(store, before_write)


def test_a_slow_store_slows_the_readers_and_not_the_memory(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given 500 images of three sizes, and a store slower than everything else
    paths = noise_images(tmp_path, [(32, 32 + n % 3) for n in range(500)])
    request = Request(specs=("pool1:all",), preprocessing=Preprocessing(resize="fit", size_px=34))
    in_flight = _Flow()
    really_read = source.read_image

    def counting_read(*arguments: Any) -> bytes:
        in_flight.comes()
        return really_read(*arguments)

    monkeypatch.setattr("worker.pipeline.loading.read_image", counting_read)
    # When the shard is worked through in batches of 4
    job = make_job(store, paths, request, batch_size=4)
    assert run(_slow_store(store), job, on_image=lambda *_: in_flight.goes()).n_images == 500
    # Then what is in flight is what may be ahead (8 and the one asked for), pending (16), in the
    # network (4) or waiting to be stored; and the store was in fact what all waited for.
    assert MAX_IMAGES < in_flight.most <= 9 + 16 + 4 + MAX_IMAGES
    resources = records.summary_of(record_of(store).schema.metadata)["resources"]
    assert resources["most_waiting_to_write"] == MAX_IMAGES
    assert resources["most_bytes_waiting_to_write"] <= MAX_IMAGES * 4 * 3 * 34 * 34
    assert 1 <= resources["most_loaded_ahead"] <= 9


@pytest.mark.parametrize("layout", [FilesLayout, TarLayout])
def test_pictures_that_are_encoded_and_not_stored_are_bounded_in_both_layouts(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: type[FilesLayout | TarLayout]
) -> None:
    encoded = _Flow()
    really_encode, really_put = Encoder.encode, layout.put
    one_at_a_time = threading.Lock()

    def counting_encode(*arguments: Any) -> Any:
        encoded.comes()
        return really_encode(*arguments)

    def slow_put(*arguments: Any) -> Any:
        with one_at_a_time:
            time.sleep(0.002)
            places = really_put(*arguments)
            encoded.goes()
            return places

    monkeypatch.setattr(Encoder, "encode", counting_encode)
    monkeypatch.setattr(layout, "put", slow_put)
    request = Request(
        specs=("pool1:all",), preprocessing=SMALL, layout="files" if layout is FilesLayout else "tar"
    )
    job = make_job(store, noise_images(tmp_path, [(40, 40)] * 200), request, batch_size=4)
    assert run(store, job) == ShardResult(0, 200, 0, committed=True)
    assert 8 < encoded.most <= MAX_IMAGES


def test_reconstructions_that_wait_are_bounded_by_memory_too(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given room for the reconstructions of two images (3 x 32 x 32 float32 each)
    room = 2 * 4 * 3 * 32 * 32
    monkeypatch.setattr("worker.pipeline.writing.MAX_BYTES", room)
    job = make_job(
        store, noise_images(tmp_path, [(40, 40)] * 30), Request(specs=("pool1:all",), preprocessing=SMALL)
    )
    assert run(_slow_store(store), job).n_images == 30
    resources = records.summary_of(record_of(store).schema.metadata)["resources"]
    assert (resources["most_waiting_to_write"], resources["most_bytes_waiting_to_write"]) == (2, room)


def test_files_that_are_read_and_not_decoded_are_bounded_by_their_bytes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given decoding slower than reading, far more images ahead than threads, and room for two files
    paths = noise_images(tmp_path, [(32, 32)] * 300)
    monkeypatch.setattr("worker.pipeline.loading.MAX_RAW_BYTES", 2 * paths[0].stat().st_size)
    held = _Flow()
    really_read, really_decode = source.read_image, decode.decode_image
    one_at_a_time = threading.Lock()

    def counting_read(*arguments: Any) -> bytes:
        held.comes()
        return really_read(*arguments)

    def slow_decode(*arguments: Any) -> Any:
        with one_at_a_time:
            time.sleep(0.002)
            photograph = really_decode(*arguments)
            held.goes()
            return photograph

    monkeypatch.setattr("worker.pipeline.loading.read_image", counting_read)
    monkeypatch.setattr("worker.pipeline.loading.decode_image", slow_decode)
    paths[7].write_bytes(b"no image")
    job = make_job(store, paths, Request(specs=("pool1:max",), preprocessing=SMALL), batch_size=64)
    # Then each reader may begin one more before the room is full, and every image is still worked on
    assert run(store, job) == ShardResult(0, 300, 1, committed=True)
    assert held.most <= 2 + 1 + N_READERS
