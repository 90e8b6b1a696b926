"""Zero is mid-grey, the scale is symmetric and recorded, and encoding loses nothing."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from PIL import Image

from worker.contract.formats import PICTURE_FORMATS
from worker.contract.jobs import PictureFormat
from worker.display import display
from worker.pipeline.picture import ENCODERS, encode, encode_input

STD = (58.0, 57.0, 57.5)


def test_a_picture_a_person_can_compute() -> None:
    # Given one pixel a column: channel times std is (±100, 50, 0)
    pixels_CHW = np.array([[[10.0, -10.0]], [[1.0, 1.0]], [[0.0, 0.0]]], dtype=np.float32)
    drawn_HWC, scale = display(pixels_CHW, (10.0, 50.0, 3.0))
    # Then 100 is drawn full, 50 half (128 + 63.5 is rounded to even), 0 mid-grey
    assert scale == 100.0
    assert drawn_HWC.tolist() == [[[255, 192, 128], [1, 192, 128]]]


@pytest.mark.parametrize("share_of_zeros", [0.0, 0.3, 0.999])
def test_the_scale_is_the_quantile_of_what_is_not_zero(share_of_zeros: float) -> None:
    random = np.random.default_rng(4)
    for size in (1, 2, 7, 50):
        pixels_CHW = random.normal(size=(3, size, size)).astype(np.float32)
        pixels_CHW[random.random(pixels_CHW.shape) < share_of_zeros] = 0
        pixels_CHW[0, 0, 0] = 1
        sizes = np.abs(pixels_CHW.astype(np.float64) * np.array(STD)[:, None, None])
        expected = np.quantile(sizes[sizes > 0], 0.995, method="higher")
        assert display(pixels_CHW, STD)[1] == expected


def test_a_picture_of_zeros_is_flat_grey_with_scale_zero() -> None:
    drawn_HWC, scale = display(np.zeros((3, 4, 5), np.float32), STD)
    assert scale == 0.0
    assert (drawn_HWC == 128).all()
    assert drawn_HWC.shape == (4, 5, 3)


def test_what_is_not_finite_is_grey_and_does_not_count() -> None:
    pixels_CHW = np.array([[[np.nan, 2.0]], [[np.inf, -1.0]], [[-np.inf, 0.0]]], dtype=np.float32)
    drawn_HWC, scale = display(pixels_CHW, (1.0, 1.0, 1.0))
    assert scale == 2.0
    assert drawn_HWC.tolist() == [[[128, 128, 128], [255, 64, 128]]]
    drawn_HWC, scale = display(np.full((3, 1, 1), np.nan, np.float32), STD)
    assert (scale, drawn_HWC.tolist()) == (0.0, [[[128, 128, 128]]])


def test_the_callers_values_stay_as_they_are() -> None:
    pixels_CHW = np.array([[[np.nan]], [[1.0]], [[-3.0]]], dtype=np.float32)
    before = pixels_CHW.copy()
    display(pixels_CHW, STD)
    np.testing.assert_array_equal(pixels_CHW, before)


@given(
    st_numpy.arrays(
        np.float32,
        st.tuples(st.just(3), st.integers(1, 4), st.integers(1, 4)),
        elements=st.floats(width=32),
    )
)
def test_display_keeps_sign_order_and_zero(pixels_CHW: npt.NDArray[np.float32]) -> None:
    drawn_HWC, scale = display(pixels_CHW, STD)
    finite_CHW = np.isfinite(pixels_CHW)
    drawn_CHW = drawn_HWC.transpose(2, 0, 1).astype(int)
    assert np.isfinite(scale)
    assert drawn_CHW.min() >= 1
    assert (drawn_CHW[~finite_CHW] == 128).all()
    assert (drawn_CHW[pixels_CHW == 0] == 128).all()
    assert (drawn_CHW[finite_CHW & (pixels_CHW > 0)] >= 128).all()
    assert (drawn_CHW[finite_CHW & (pixels_CHW < 0)] <= 128).all()
    # The way back: scale and picture give the values to half a step.
    if scale > 0:
        values_CHW = pixels_CHW.astype(float) * np.array(STD)[:, None, None]
        back_CHW = (drawn_CHW - 128) / 127 * scale
        assert np.abs(back_CHW - values_CHW)[finite_CHW].max() <= scale * (0.5 / 127 + 1e-9)


@given(
    st_numpy.arrays(
        np.float32,
        st.tuples(st.just(3), st.integers(1, 4), st.integers(1, 4)),
        elements=st.floats(width=32),
    )
)
def test_opposite_values_are_drawn_as_opposite_greys(pixels_CHW: npt.NDArray[np.float32]) -> None:
    drawn_HWC, scale = display(pixels_CHW, STD)
    opposite_HWC, opposite_scale = display(-pixels_CHW, STD)
    assert opposite_scale == scale
    np.testing.assert_array_equal(opposite_HWC, 256 - drawn_HWC.astype(int))


DRAWN = [name for name, known in PICTURE_FORMATS.items() if known.holds == "picture"]


def test_every_format_has_its_encoder_and_every_encoder_its_format() -> None:
    assert ENCODERS.keys() == PICTURE_FORMATS.keys()


@pytest.mark.parametrize("picture_format", DRAWN)
def test_encoded_pictures_hold_the_display_without_loss(picture_format: PictureFormat) -> None:
    pixels_CHW = np.random.default_rng(3).normal(size=(3, 21, 34)).astype(np.float32)
    picture = encode(pixels_CHW, STD, picture_format)
    with Image.open(io.BytesIO(picture.data)) as image:
        assert image.format == picture_format.upper()
        drawn_HWC = np.asarray(image.convert("RGB"))
    expected_HWC, scale = display(pixels_CHW, STD)
    np.testing.assert_array_equal(drawn_HWC, expected_HWC)
    assert picture.scale == scale
    assert picture.sha256 == hashlib.sha256(picture.data).hexdigest()


def test_npy_holds_the_networks_units() -> None:
    pixels_CHW = np.random.default_rng(3).normal(size=(3, 5, 4)).astype(np.float32)
    pixels_CHW[0, 0, 0] = np.nan
    stored = np.load(io.BytesIO(encode(pixels_CHW, STD, "npy").data), allow_pickle=False)
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, pixels_CHW)


def test_the_input_is_kept_as_jpeg() -> None:
    pixels_HWC = np.full((40, 30, 3), (200, 100, 50), dtype=np.uint8)
    with Image.open(io.BytesIO(encode_input(pixels_HWC))) as image:
        assert (image.format, image.size) == ("JPEG", (30, 40))
        np.testing.assert_allclose(np.asarray(image).astype(int), pixels_HWC, atol=3)
