"""Each file of the corpus becomes the picture that it holds, or the error that it should."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.corpus import bombs, make_corpus
from tests.imagebytes import exif, saved
from tests.odd_pictures import Odd, upright
from tests.unit.shards import rows_of, run
from tests.unit.standin import make_job
from worker.contract.errors import ImageError
from worker.contract.jobs import Preprocessing, Request
from worker.pipeline import Limits
from worker.pipeline.decode import decode_image
from worker.pipeline.source import read_image
from worker.storage import open_store

LIMITS = Limits(max_image_bytes=256 * 2**20, max_image_pixels=100_000_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(scope="module")
def corpus(folder: Path) -> list[Odd]:
    return make_corpus(folder)


def _what_is_wrong(odd: Odd, folder: Path) -> str | None:
    try:
        data = read_image(str(folder / odd.name), LIMITS.max_image_bytes, LIMITS.allowed_roots)
        photograph = decode_image(data, LIMITS.max_image_pixels)
    except ImageError as error:
        return None if type(error).__name__ == odd.error else f"{type(error).__name__}: {error}"
    if odd.picture is None:
        return f"an image, not {odd.error}"
    if photograph.note != odd.note:
        return f"note {photograph.note!r}, not {odd.note!r}"
    if (photograph.rgb.height, photograph.rgb.width) != odd.picture.shape[:2]:
        return f"{photograph.rgb.size} pixels"
    difference = np.abs(np.asarray(photograph.rgb).astype(int) - odd.picture).max()
    return f"pixels differ by {difference}" if difference > odd.tolerance else None


def test_the_corpus_is_large_and_no_file_stands_for_another(corpus: list[Odd]) -> None:
    assert len({odd.name for odd in corpus}) == len(corpus) >= 150
    assert sum(odd.error is not None for odd in corpus) >= 50


def test_each_file_is_its_picture_or_its_error(corpus: list[Odd], folder: Path) -> None:
    wrong = {odd.name: what for odd in corpus if (what := _what_is_wrong(odd, folder))}
    assert wrong == {}


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(size_px=32),
        Preprocessing(size_px=64),
        Preprocessing(resize="fit", size_px=64),
        Preprocessing(resize="native"),
    ],
    ids=lambda preprocessing: f"{preprocessing.resize} {preprocessing.size_px}",
)
def test_a_shard_of_them_has_each_once_a_spec(
    corpus: list[Odd], folder: Path, tmp_path: Path, preprocessing: Preprocessing
) -> None:
    store = open_store(tmp_path / "job")
    images = [folder / odd.name for odd in corpus]
    request = Request(specs=("pool1:max", "pool2:all"), preprocessing=preprocessing)

    result = run(store, make_job(store, images, request), limits=LIMITS)

    errors = [odd.error_with(preprocessing) for odd in corpus]
    assert (result.n_images, result.n_failed) == (len(corpus), len(errors) - errors.count(None))
    rows = rows_of(store)
    assert [(row["image"], row["spec"], row["error"]) for row in rows] == [
        (str(image), spec, error)
        for image, error in zip(images, errors, strict=True)
        for spec in ("pool1:max", "pool2:all")
    ]
    notes = {str(folder / odd.name): odd.note for odd in corpus}
    for row in rows:
        if row["status"] == "ok":
            assert row["message"] == notes[row["image"]]
            left, top, right, bottom = row["source_box"]
            assert 0 <= left < right <= row["source_width"]
            assert 0 <= top < bottom <= row["source_height"]
        else:
            assert row["status"] == "failed"
            assert row["message"]


_MEASURE = """
import json, resource, sys
from pathlib import Path
from worker.contract.errors import ImageError
from worker.pipeline.decode import decode_image

decode_image(Path(sys.argv[1]).read_bytes(), 100_000_000)
grown = {}
for name in sys.argv[2:]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        decode_image(Path(name).read_bytes(), 100_000_000)
    except ImageError:
        pass
    grown[name] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps(grown))
"""


def test_a_bomb_takes_no_memory(corpus: list[Odd], folder: Path) -> None:
    names = [str(folder / odd.name) for odd in bombs()]
    command = [sys.executable, "-c", _MEASURE, str(folder / "mode RGBA.png"), *names]
    grown_kib = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert {name: kib for name, kib in grown_kib.items() if kib > 32 * 1024} == {}


_SMALL = Image.fromarray(upright())
_WHOLE = [
    saved(_SMALL, "JPEG", exif=exif(6)),
    saved(_SMALL, "JPEG", progressive=True, icc_profile=b"profile" * 20),
    saved(_SMALL.convert("CMYK"), "JPEG"),
    saved(_SMALL, "PNG", exif=exif(3)),
    saved(_SMALL.convert("RGBA"), "PNG", save_all=True, append_images=[_SMALL.convert("RGBA").rotate(180)]),
    saved(_SMALL.quantize(16), "PNG", transparency=3),
    saved(_SMALL.quantize(16), "GIF", transparency=3),
    saved(_SMALL, "GIF", save_all=True, append_images=[_SMALL.rotate(180)]),
    saved(_SMALL, "WEBP", exif=exif(8)),
    saved(_SMALL.convert("RGBA"), "WEBP", lossless=True, save_all=True, append_images=[_SMALL.rotate(180)]),
    saved(_SMALL, "TIFF", compression="tiff_lzw", exif=exif(5)),
    saved(_SMALL, "TIFF", save_all=True, append_images=[_SMALL]),
    saved(_SMALL.convert("LAB"), "TIFF"),
    saved(_SMALL, "BMP"),
    saved(_SMALL.quantize(16), "BMP"),
]
_STARTS = [
    b"",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"RIFF\x40\0\0\0WEBPVP8 ",
    b"II*\0",
    b"MM\0*",
    b"BM",
]


def _assert_picture_or_image_error(data: bytes) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            said = decode_image(data, 1_000_000).note or ""
        except ImageError as error:
            said = str(error)
    assert caught == []
    assert "\n" not in said


@given(st.sampled_from(_STARTS), st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_random_bytes_raise_nothing_else_and_warn_of_nothing(start: bytes, rest: bytes) -> None:
    _assert_picture_or_image_error(start + rest)


@given(st.sampled_from(_WHOLE), st.floats(0, 1))
@settings(max_examples=300, deadline=None)
def test_nor_does_an_image_cut_anywhere(data: bytes, share: float) -> None:
    _assert_picture_or_image_error(data[: int(share * len(data))])


@given(st.sampled_from(_WHOLE), st.integers(0), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_nor_does_an_image_with_a_changed_byte(data: bytes, place: int, change: int) -> None:
    # Half of the changes fall on the first bytes, where the headers are.
    place = place // 2 % (len(data) if place % 2 else min(len(data), 200))
    _assert_picture_or_image_error(data[:place] + bytes([data[place] ^ change]) + data[place + 1 :])
