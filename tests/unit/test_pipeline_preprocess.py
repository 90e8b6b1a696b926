"""The network's input is torchvision's, and a window finds its way back into the photograph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.models import VGG16_Weights
from torchvision.transforms import functional as F

from tests.imagebytes import exif, saved
from tests.photographs import photographs
from tests.unit.standin import Window
from worker.contract.errors import ImageTooLarge, ImageTooSmall
from worker.contract.jobs import Preprocessing
from worker.pipeline.decode import decode_image
from worker.pipeline.preprocess import MAX_SIDE, Geometry, preprocess

CROP = Preprocessing()


def _noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def _by_torchvision(rgb: Image.Image) -> torch.Tensor:
    """VGG16's own transform, with its normalisation taken back: 0 to 255, HWC."""
    transform = VGG16_Weights.IMAGENET1K_V1.transforms()
    normalised = transform(rgb)
    mean, std = torch.tensor(transform.mean), torch.tensor(transform.std)
    values: torch.Tensor = (normalised * std[:, None, None] + mean[:, None, None]) * 255
    return values.permute(1, 2, 0)


@pytest.mark.parametrize("path", photographs(), ids=lambda path: path.name)
def test_crop_is_the_transform_of_torchvisions_vgg16(path: object) -> None:
    with Image.open(str(path)) as image:
        rgb = image.convert("RGB")
    difference = np.abs(preprocess(rgb, CROP).pixels_HWC - _by_torchvision(rgb).numpy())
    # What float32 loses by normalising and back; one step of 8 bits would be 1.
    assert difference.max() < 1e-3


@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_crop_is_torchvisions_at_every_size(width: int, height: int, seed: int) -> None:
    assume(max(width, height) < 63 * min(width, height))
    rgb = _noise(width, height, seed)
    difference = np.abs(preprocess(rgb, CROP).pixels_HWC - _by_torchvision(rgb).numpy())
    assert difference.max() < 1e-3


@pytest.mark.parametrize("size_px", [32, 97, 448])
def test_other_sizes_keep_the_ratio_of_256_to_224(size_px: int) -> None:
    rgb = _noise(300, 421)
    resized = F.resize(rgb, [round(size_px * 256 / 224)], F.InterpolationMode.BILINEAR, antialias=True)
    expected = np.asarray(F.center_crop(resized, [size_px]))
    pixels_HWC = preprocess(rgb, Preprocessing(size_px=size_px)).pixels_HWC
    assert pixels_HWC.shape == (size_px, size_px, 3)
    np.testing.assert_array_equal(pixels_HWC, expected)


def test_an_image_too_thin_to_be_resized_is_refused() -> None:
    # Its crop is 224 x 224, but the image in between would have 256 x 12,800,000 pixels.
    with pytest.raises(ImageTooLarge, match="50000 x 1 pixels would be resized to 12800000 x 256"):
        preprocess(Image.new("RGB", (50_000, 1)), CROP)
    assert preprocess(Image.new("RGB", (63, 1), (9, 8, 7)), CROP).pixels_HWC.shape == (224, 224, 3)


def test_fit_shows_the_whole_image() -> None:
    rgb = _noise(400, 300)
    preprocessed = preprocess(rgb, Preprocessing(resize="fit", size_px=200))
    np.testing.assert_array_equal(
        preprocessed.pixels_HWC, np.asarray(rgb.resize((200, 150), Image.Resampling.BILINEAR))
    )
    assert preprocessed.geometry.source_box(Window(0, 0, 200, 150)) == (0, 0, 400, 300)
    assert preprocessed.geometry.source_box(Window(10, 20, 30, 40)) == (20, 40, 60, 80)
    tall = preprocess(_noise(100, 331), Preprocessing(resize="fit", size_px=224))
    assert tall.pixels_HWC.shape == (224, 68, 3)


def test_native_changes_nothing() -> None:
    rgb = _noise(37, 53)
    preprocessed = preprocess(rgb, Preprocessing(resize="native"))
    np.testing.assert_array_equal(preprocessed.pixels_HWC, np.asarray(rgb))
    assert preprocessed.geometry == Geometry(37, 53, (0, 0, 37, 53), 37, 53)
    assert preprocessed.geometry.source_box(Window(1, 2, 3, 4)) == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("width", "height", "preprocessing"),
    [
        (31, 500, Preprocessing(resize="native")),
        (500, 31, Preprocessing(resize="native")),
        (1000, 100, Preprocessing(resize="fit", size_px=224)),
        (1000, 1, Preprocessing(resize="fit", size_px=224)),
    ],
)
def test_what_comes_out_too_small_is_refused(width: int, height: int, preprocessing: Preprocessing) -> None:
    with pytest.raises(ImageTooSmall, match=f"{width} x {height}.*less than 32"):
        preprocess(Image.new("RGB", (width, height)), preprocessing)


def test_thirty_two_pixels_are_enough_and_a_side_no_format_holds_is_too_many() -> None:
    native = Preprocessing(resize="native")
    assert preprocess(Image.new("RGB", (32, 16383)), native).pixels_HWC.shape == (16383, 32, 3)
    with pytest.raises(ImageTooLarge, match="16383"):
        preprocess(Image.new("RGB", (32, 16384)), native)


_PREPROCESSINGS = st.builds(
    Preprocessing, resize=st.sampled_from(["crop", "fit", "native"]), size_px=st.integers(32, 128)
)


@given(st.integers(32, 200), st.integers(32, 200), _PREPROCESSINGS, st.data())
@settings(max_examples=60, deadline=None)
def test_a_window_lies_in_the_source_where_its_pixels_come_from(
    width: int, height: int, preprocessing: Preprocessing, data: st.DataObject
) -> None:
    # Given an image whose red is its column and whose green is its row
    source = np.zeros((height, width, 3), dtype=np.uint8)
    source[:, :, 0] = np.arange(width)
    source[:, :, 1] = np.arange(height)[:, None]
    try:
        preprocessed = preprocess(Image.fromarray(source), preprocessing)
    except ImageTooSmall:
        return
    geometry = preprocessed.geometry
    x = data.draw(st.integers(0, geometry.width - 1))
    y = data.draw(st.integers(0, geometry.height - 1))
    # When a window of one pixel is asked for its place
    left, top, right, bottom = geometry.source_box(Window(x, y, x + 1, y + 1))
    # Then it lies in the image, and its middle is the pixel's colour (at the edge the filter is cut off)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    red, green, _ = preprocessed.pixels_HWC[y, x].astype(float)
    assert red + 0.5 == pytest.approx((left + right) / 2, abs=0.51 + (right - left) / 2)
    assert green + 0.5 == pytest.approx((top + bottom) / 2, abs=0.51 + (bottom - top) / 2)


def _to_raw(
    box: tuple[float, float, float, float], orientation: int, width: int, height: int
) -> tuple[float, float, float, float]:
    """A box of the upright picture (of this width and height) in the grid that the file holds.

    By EXIF's definition: which side of the picture its first row and its first column are.
    """
    left, top, right, bottom = box
    if orientation in (2, 3, 6, 7):  # the picture's right side comes first
        left, right = width - right, width - left
    if orientation in (3, 4, 7, 8):  # its bottom comes first
        top, bottom = height - bottom, height - top
    return (left, top, right, bottom) if orientation < 5 else (top, left, bottom, right)


@given(st.integers(32, 120), st.integers(32, 120), st.integers(1, 8), _PREPROCESSINGS, st.data())
@settings(max_examples=100, deadline=None)
def test_a_window_shows_its_part_of_the_file_however_that_is_turned(
    raw_width: int, raw_height: int, orientation: int, preprocessing: Preprocessing, data: st.DataObject
) -> None:
    # Given a file whose red is its own column and whose green is its own row, before it is turned
    raw = np.zeros((raw_height, raw_width, 3), dtype=np.uint8)
    raw[:, :, 0] = np.arange(raw_width)
    raw[:, :, 1] = np.arange(raw_height)[:, None]
    photograph = decode_image(saved(Image.fromarray(raw), "PNG", exif=exif(orientation)), 1_000_000)
    try:
        preprocessed = preprocess(photograph.rgb, preprocessing)
    except ImageTooSmall:
        return
    geometry = preprocessed.geometry
    upright = (raw_height, raw_width) if orientation >= 5 else (raw_width, raw_height)
    assert (geometry.source_width, geometry.source_height) == upright
    # When a window of one pixel is looked up in the upright picture, and from there in the file
    x = data.draw(st.integers(0, geometry.width - 1))
    y = data.draw(st.integers(0, geometry.height - 1))
    box = geometry.source_box(Window(x, y, x + 1, y + 1))
    left, top, right, bottom = _to_raw(box, orientation, *upright)
    # Then it lies in the file's grid, and its middle is the place that the pixel's colour names
    assert 0 <= left < right <= raw_width
    assert 0 <= top < bottom <= raw_height
    red, green, _ = preprocessed.pixels_HWC[y, x].astype(float)
    assert red + 0.5 == pytest.approx((left + right) / 2, abs=0.51 + (right - left) / 2)
    assert green + 0.5 == pytest.approx((top + bottom) / 2, abs=0.51 + (bottom - top) / 2)


@given(st.integers(32, 3000), st.integers(32, 3000), st.integers(32, 512))
@settings(max_examples=100, deadline=None)
def test_the_crops_box_is_centred_and_keeps_the_sides_alike(width: int, height: int, size_px: int) -> None:
    # Thinner ones are refused.
    assume(max(width, height) / min(width, height) * round(size_px * 256 / 224) < MAX_SIDE)
    geometry = preprocess(Image.new("RGB", (width, height)), Preprocessing(size_px=size_px)).geometry
    left, top, right, bottom = geometry.source_box(Window(0, 0, size_px, size_px))
    side = min(width, height) * size_px / round(size_px * 256 / 224)
    # One pixel of the resized image, in the source: what rounding may move the crop by.
    step = min(width, height) / round(size_px * 256 / 224)
    assert min(right - left, bottom - top) == pytest.approx(side)
    assert max(right - left, bottom - top) == pytest.approx(side, abs=step * 1.5)
    assert (left + right) / 2 == pytest.approx(width / 2, abs=step)
    assert (top + bottom) / 2 == pytest.approx(height / 2, abs=step)
