"""Difference hashes: known ones, and how far apart photographs and their copies lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.photographs import photographs
from worker.pipeline.likeness import difference_hash


def test_a_difference_hash_is_the_neighbours_comparisons() -> None:
    rising_HW = np.tile(np.arange(0, 225, dtype=np.uint8), (224, 1))
    rising_HWC = np.stack([rising_HW] * 3, axis=2)
    assert difference_hash(rising_HWC) == 2**64 - 1
    assert difference_hash(rising_HWC[:, ::-1].copy()) == 0
    assert difference_hash(np.full((64, 64, 3), 77, np.uint8)) == 0
    # Only the lower half rises: the first place is the highest bit, so the lower half is the lower 32
    rising_HWC[:112] = 10
    assert (difference_hash(rising_HWC) ^ (2**32 - 1)).bit_count() <= 8


def test_a_photograph_made_smaller_brighter_or_compressed_keeps_most_of_its_hash(tmp_path: Path) -> None:
    hashes = []
    for path in photographs()[:4]:
        with Image.open(path) as image:
            rgb = image.convert("RGB").resize((224, 224))
        own = difference_hash(np.asarray(rgb))
        rgb.save(tmp_path / "small.jpg", quality=40)
        with Image.open(tmp_path / "small.jpg") as compressed:
            others = [
                difference_hash(np.asarray(rgb.resize((100, 100)))),
                difference_hash(
                    np.asarray(rgb.point([min(255, value * 6 // 5) for value in range(256)] * 3))
                ),
                difference_hash(np.asarray(compressed)),
            ]
        assert all((own ^ other).bit_count() <= 6 for other in others)
        hashes.append(own)
    assert min((a ^ b).bit_count() for a in hashes for b in hashes if a != b) > 12
