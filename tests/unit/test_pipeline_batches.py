"""Batches hold images of one size, none is lost, none waits for ever, and few wait at all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.contract.jobs import Job, Preprocessing, Request
from worker.pipeline.batches import Batcher, BatchSizes


@dataclass(frozen=True)
class Image:
    number: int
    height: int
    width: int


def _sizes(batch_size: int | None = None, device: str = "cpu", **preprocessing: object) -> BatchSizes:
    job = Job(
        id="job",
        place="/place",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        request=Request(preprocessing=Preprocessing.model_validate(preprocessing)),
        batch_size=batch_size,
        shard_size=1,
        n_images=1,
        n_shards=1,
        fingerprint="0" * 64,
    )
    return BatchSizes(job, device)


@pytest.mark.parametrize(
    ("height", "width", "n"), [(224, 224, 8), (448, 448, 2), (224, 112, 16), (1000, 1000, 1), (32, 32, 256)]
)
def test_the_default_keeps_the_pixels_of_a_batch_about_the_same(height: int, width: int, n: int) -> None:
    assert _sizes().of(height, width) == n


def test_a_gpu_takes_more_and_what_was_asked_is_taken() -> None:
    assert _sizes(device="cuda").of(224, 224) == 32
    assert _sizes(batch_size=5).of(224, 224) == 5
    assert _sizes(batch_size=5).of(1000, 1000) == 5


def test_halving_counts_pixels_and_ends_at_one() -> None:
    sizes = _sizes(batch_size=8)
    sizes.halve(8, 100, 100)
    assert sizes.of(100, 100) == 4
    assert sizes.of(200, 100) == 2
    assert sizes.of(50, 100) == 8
    sizes.halve(3, 100, 100)
    assert sizes.of(100, 100) == 1
    assert sizes.of(1000, 1000) == 1


def test_native_photographs_are_read_ahead_few_at_a_time() -> None:
    assert _sizes(resize="native").n_ahead == 4
    assert _sizes().n_ahead == 16
    assert _sizes(batch_size=4096).n_ahead == 128


@given(
    st.lists(st.tuples(st.sampled_from([32, 48, 64, 200]), st.sampled_from([32, 40, 300])), max_size=120),
    st.sampled_from([None, 1, 3, 8]),
)
def test_every_image_leaves_once_with_its_like_and_few_wait(
    shapes: list[tuple[int, int]], batch_size: int | None
) -> None:
    sizes = _sizes(batch_size, size_px=64, resize="fit")
    batcher: Batcher[Image] = Batcher(sizes)
    images = [Image(number, *shape) for number, shape in enumerate(shapes)]
    waiting: set[int] = set()
    seen: list[int] = []

    def take(batch: list[Image]) -> None:
        assert len({(image.height, image.width) for image in batch}) == 1
        assert 1 <= len(batch) <= sizes.of(batch[0].height, batch[0].width)
        seen.extend(image.number for image in batch)
        waiting.difference_update(image.number for image in batch)

    for image in images:
        waiting.add(image.number)
        for batch in batcher.add(image):
            take(batch)
        assert sum(images[n].height * images[n].width for n in waiting) <= sizes.pending_pixels
    for batch in batcher.rest():
        take(batch)
    assert sorted(seen) == list(range(len(images)))


def test_the_group_of_the_oldest_image_leaves_early() -> None:
    batcher: Batcher[Image] = Batcher(_sizes(batch_size=2, size_px=32))  # 8 x 32 x 32 pixels may wait
    old = Image(0, 32, 33)
    assert list(batcher.add(old)) == []
    assert list(batcher.add(Image(1, 32, 64))) == []
    assert list(batcher.add(Image(2, 32, 200))) == [[old], [Image(1, 32, 64)]]
