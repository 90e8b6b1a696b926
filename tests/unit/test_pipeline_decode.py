"""Bytes of every kind become the right colours, or an error that says why not."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.imagebytes import many_pages, with_scans_repeated
from tests.photographs import photographs
from worker.contract.errors import ImageError, ImageTooLarge, ImageUnreadable
from worker.pipeline.decode import decode_image

MAX_PIXELS = 1_000_000
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def _encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _pixels(data: bytes) -> npt.NDArray[np.uint8]:
    photograph = decode_image(data, MAX_PIXELS)
    assert photograph.rgb.mode == "RGB"
    return np.asarray(photograph.rgb)


def _corners() -> Image.Image:
    """3 wide, 2 high: red left above, green right above, blue left below, else white."""
    image = Image.new("RGB", (3, 2), WHITE)
    image.putpixel((0, 0), RED)
    image.putpixel((2, 0), GREEN)
    image.putpixel((0, 1), BLUE)
    return image


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "GIF"])
def test_lossless_formats_give_the_very_pixels(image_format: str) -> None:
    data = _encoded(_corners(), image_format)
    np.testing.assert_array_equal(_pixels(data), np.asarray(_corners()))


def test_webp_without_loss_gives_the_very_pixels() -> None:
    data = _encoded(_corners(), "WEBP", lossless=True)
    np.testing.assert_array_equal(_pixels(data), np.asarray(_corners()))


@pytest.mark.parametrize(("quality", "tolerance"), [(100, 3)])
def test_jpeg_is_near(quality: int, tolerance: int) -> None:
    image = Image.new("RGB", (16, 16), (200, 100, 50))
    pixels_HWC = _pixels(_encoded(image, "JPEG", quality=quality))
    np.testing.assert_allclose(pixels_HWC.astype(int), np.full((16, 16, 3), (200, 100, 50)), atol=tolerance)


def test_a_photograph_is_decoded_as_pillow_does() -> None:
    for path in photographs():
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(np.asarray(decode_image(path.read_bytes(), 10**8).rgb), expected)


# Where the red corner, the green and the blue one lie (row, column) in an upright picture.
_TURNED = {
    1: ((0, 0), (0, -1), (-1, 0)),
    2: ((0, -1), (0, 0), (-1, -1)),
    3: ((-1, -1), (-1, 0), (0, -1)),
    4: ((-1, 0), (-1, -1), (0, 0)),
    5: ((0, 0), (-1, 0), (0, -1)),
    6: ((0, -1), (-1, -1), (0, 0)),
    7: ((-1, -1), (0, -1), (-1, 0)),
    8: ((-1, 0), (0, 0), (-1, -1)),
}


@pytest.mark.parametrize("orientation", sorted(_TURNED))
@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_a_picture_is_turned_upright_as_its_exif_says(orientation: int, image_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels_HWC = _pixels(_encoded(_corners(), image_format, exif=exif))
    assert pixels_HWC.shape == ((2, 3, 3) if orientation < 5 else (3, 2, 3))
    for colour, (row, column) in zip((RED, GREEN, BLUE), _TURNED[orientation], strict=True):
        assert tuple(pixels_HWC[row, column]) == colour


def test_transparency_lies_over_white() -> None:
    rgba = Image.new("RGBA", (3, 1))
    rgba.putpixel((0, 0), (255, 0, 0, 255))
    rgba.putpixel((1, 0), (0, 0, 0, 0))
    rgba.putpixel((2, 0), (0, 0, 0, 51))  # a fifth of black over white
    np.testing.assert_array_equal(_pixels(_encoded(rgba, "PNG"))[0], [RED, WHITE, (204, 204, 204)])
    grey = Image.new("LA", (1, 1), (0, 51))
    np.testing.assert_array_equal(_pixels(_encoded(grey, "PNG"))[0], [(204, 204, 204)])


def test_a_transparent_palette_entry_is_white() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *GREEN])
    palette.putpixel((1, 0), 1)
    assert [tuple(pixel) for pixel in _pixels(_encoded(palette, "PNG"))[0]] == [RED, GREEN]
    data = _encoded(palette, "PNG", transparency=bytes([255, 0]))
    assert [tuple(pixel) for pixel in _pixels(data)[0]] == [RED, WHITE]
    assert [tuple(pixel) for pixel in _pixels(_encoded(palette, "GIF", transparency=0))[0]] == [WHITE, GREEN]


def test_grey_and_black_and_white_become_rgb() -> None:
    assert _pixels(_encoded(Image.new("L", (1, 1), 77), "PNG")).tolist() == [[[77, 77, 77]]]
    assert _pixels(_encoded(Image.new("1", (1, 1), 1), "PNG")).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_cut(image_format: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    data = _encoded(Image.fromarray(values), image_format)
    # 65535 / 255 = 257 is one step of 8 bits; 128 rounds down, 129 up.
    assert _pixels(data)[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_cmyk_becomes_rgb() -> None:
    data = _encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    np.testing.assert_allclose(_pixels(data)[4, 4].astype(int), RED, atol=3)


def test_thirty_two_bit_values_without_a_range_are_refused() -> None:
    for values in (np.zeros((2, 2), np.float32), np.zeros((2, 2), np.int32)):
        with pytest.raises(ImageUnreadable, match="32 bits"):
            decode_image(_encoded(Image.fromarray(values), "TIFF"), MAX_PIXELS)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_an_animation_the_first_frame_is_taken_and_said(image_format: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = _encoded(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
    photograph = decode_image(data, MAX_PIXELS)
    assert photograph.note == "first frame of 3"
    assert photograph.rgb.getpixel((1, 1)) == RED


def test_a_still_picture_needs_no_note() -> None:
    assert decode_image(_encoded(_corners(), "PNG"), MAX_PIXELS).note is None


def test_pages_are_counted_up_to_a_thousand() -> None:
    assert decode_image(many_pages(1000), MAX_PIXELS).note == "first frame of 1000"
    assert decode_image(many_pages(1001), MAX_PIXELS).note == "first frame of more than 1000"


def test_a_progressive_jpeg_may_have_a_hundred_scans() -> None:
    image = Image.new("L", (16, 16), 77)
    progressive = _encoded(image, "JPEG", progressive=True)
    n_scans = progressive.count(b"\xff\xda")
    assert _pixels(with_scans_repeated(progressive, 100 - n_scans)).tolist() == _pixels(progressive).tolist()
    with pytest.raises(ImageUnreadable, match="more than 100 scans"):
        decode_image(with_scans_repeated(progressive, 101 - n_scans), MAX_PIXELS)
    # What looks like scans in a comment, or behind the image, is none.
    looks_alike = b"\xff\xda" * 200
    data = _encoded(image, "JPEG", progressive=True, comment=looks_alike) + looks_alike
    assert _pixels(data).tolist() == _pixels(progressive).tolist()


def test_pixels_are_counted_before_they_are_decoded() -> None:
    # Given a header that claims far more pixels than there are bytes: decoding would say "cut short"
    data = bytearray(_encoded(Image.new("1", (8, 8)), "BMP"))
    data[18:26] = (30_000).to_bytes(4, "little") * 2
    with pytest.raises(ImageTooLarge, match="pixels"):
        decode_image(bytes(data), MAX_PIXELS)
    just_right = _encoded(Image.new("L", (1000, 1000)), "PNG")
    assert decode_image(just_right, MAX_PIXELS).rgb.size == (1000, 1000)
    with pytest.raises(ImageTooLarge, match="more than the 999999 pixels allowed"):
        decode_image(just_right, MAX_PIXELS - 1)


def test_the_pixel_limit_holds_where_warnings_are_silenced() -> None:
    data = _encoded(Image.new("L", (1000, 1000)), "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ImageTooLarge, match="more than the 999999 pixels allowed"):
            decode_image(data, MAX_PIXELS - 1)


def test_a_limit_above_pillows_own_counts() -> None:
    data = _encoded(Image.new("1", (10_000, 9_500)), "PNG")
    with pytest.raises(ImageTooLarge):
        decode_image(data, 90_000_000)
    assert decode_image(data, 95_000_000).rgb.size == (10_000, 9_500)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_truncated_file_is_called_so(image_format: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = _encoded(Image.fromarray(noise), image_format)
    with pytest.raises(ImageUnreadable, match=r"cut short or broken|no image"):
        decode_image(data[: len(data) // 2], MAX_PIXELS)


@pytest.mark.parametrize("data", [b"", b"hello", b"<svg/>", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n"])
def test_bytes_that_are_no_image_are_called_so(data: bytes) -> None:
    with pytest.raises(ImageUnreadable, match=r"no image of a known format|broken"):
        decode_image(data, MAX_PIXELS)


def test_formats_outside_the_allow_list_are_refused() -> None:
    for image_format in ("PPM", "TGA", "ICO"):
        with pytest.raises(ImageUnreadable, match="JPEG, PNG"):
            decode_image(_encoded(Image.new("RGB", (16, 16)), image_format), MAX_PIXELS)


_SOURCES = [
    _encoded(_corners().resize((24, 16)), image_format)
    for image_format in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
]


@given(
    st.sampled_from(_SOURCES),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=6),
)
@settings(max_examples=300, deadline=None)
def test_no_corruption_gets_through_as_another_error(data: bytes, changes: list[tuple[int, int]]) -> None:
    broken = bytearray(data)
    for place, value in changes:
        broken[place % len(broken)] = value
    with contextlib.suppress(ImageError):
        assert decode_image(bytes(broken), MAX_PIXELS).rgb.mode == "RGB"
