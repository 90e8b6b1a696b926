"""The page in a real browser: it draws, its pictures decode, and hostile names run nothing."""

from __future__ import annotations

import io
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests import programs
from tests.photographs import photographs
from tests.report_job import data_of, finished_job, png, read_html
from worker.contract.keys import REPORT, image_key, input_key

pytestmark = pytest.mark.integration

HOSTILE = "/data/<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">.png"
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


@pytest.fixture(scope="module")
def chromium() -> str:
    return programs.chromium()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with a photograph, a hostile name among the good and one among the failed."""
    folder = tmp_path_factory.mktemp("job")
    job = finished_job(folder)
    cat = str(photographs()[0])
    for image in (cat, HOSTILE):
        job.add(image)
    with Image.open(cat) as photograph:
        buffer = io.BytesIO()
        photograph.convert("RGB").resize((64, 48)).save(buffer, "JPEG", quality=90)
    job.store.write(input_key(image_key(cat)), buffer.getvalue())
    job.add_failure(f"{HOSTILE}2", "ImageUnreadable", f"{HOSTILE} is no image")
    job.write()
    return folder / REPORT


def run(chromium: str, profile: Path, page: Path, *options: str) -> str:
    command = [chromium, *_FLAGS, f"--user-data-dir={profile}", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return done.stdout.decode()


def test_no_script_runs_from_a_hostile_name(chromium: str, page: Path, tmp_path: Path) -> None:
    dom = run(chromium, tmp_path, page, "--dump-dom")
    assert re.findall(r"<title>(.*?)</title>", dom) == ["holiday-0123456789 · Deconvoy"]
    assert "<script" not in dom
    assert len(re.findall(r"<img ", dom)) == 20
    assert "document.title='ran'&lt;/script&gt;" in dom


def test_the_browser_would_have_run_it_without_escaping(chromium: str, tmp_path: Path) -> None:
    """Guards the test above: in this browser such a name does change the title."""
    bare = tmp_path / "bare.html"
    bare.write_text(f"<!doctype html><title>still</title>{HOSTILE}")
    assert "<title>ran</title>" in run(chromium, tmp_path / "profile", bare, "--dump-dom")


def test_every_embedded_picture_decodes_at_its_stated_size(page: Path) -> None:
    tree = read_html(page.read_text())
    pictures = [(node.attributes["src"], node.attributes) for node in tree.all("img")]
    pictures += [(node.attributes["href"], node.attributes) for node in tree.all("image")]
    assert len(pictures) == 22
    for uri, attributes in pictures:
        with Image.open(io.BytesIO(data_of(uri))) as picture:
            picture.load()
            assert picture.size == (int(attributes["width"]), int(attributes["height"]))


def test_the_page_reaches_for_nothing_outside(page: Path) -> None:
    text = page.read_text()
    outside = set(re.findall(r"(?:https?:)?//[\w.]+[^\s\"<]*", re.sub(r"data:image/[^\"]+", "", text)))
    assert outside == {"https://arxiv.org/abs/1805.07039", "https://arxiv.org/abs/1311.2901"}


@pytest.mark.parametrize(("width_px", "scheme"), [(1280, 1), (1280, 0), (400, 1)])
def test_the_browser_draws_it_in_light_dark_and_narrow(
    chromium: str, page: Path, tmp_path: Path, width_px: int, scheme: int
) -> None:
    drawn = tmp_path / "page.png"
    run(
        chromium,
        tmp_path / "profile",
        page,
        f"--screenshot={drawn}",
        f"--window-size={width_px},1600",
        f"--blink-settings=preferredColorScheme={scheme}",
    )
    with Image.open(drawn) as picture:
        assert picture.size == (width_px, 1600)
        shown = picture.convert("RGB")
    dark = scheme == 0
    corner = shown.getpixel((2, 2))
    assert isinstance(corner, tuple)
    assert (sum(corner) < 3 * 60) == dark
    colours = shown.getcolors(maxcolors=1 << 24)
    assert colours is not None
    assert len(colours) > 500


def test_the_frame_is_drawn_at_the_window_and_the_patch_shows_only_the_window(
    chromium: str, tmp_path: Path
) -> None:
    """A green photograph with a blue window: the patch is blue all over, letterboxed, with no green in it."""
    job = finished_job(tmp_path / "job", ["pool1:max"])
    job.add("cat.png", lambda row: replace(row, left=8, top=8, right=32, bottom=16))
    photograph = Image.open(io.BytesIO(png((0, 160, 0), (64, 48))))
    photograph.paste((0, 0, 255), (8, 8, 32, 16))
    buffer = io.BytesIO()
    photograph.save(buffer, "JPEG", quality=100, subsampling=0)
    job.store.write(input_key(image_key("cat.png")), buffer.getvalue())
    job.write()
    drawn = tmp_path / "page.png"
    run(
        chromium,
        tmp_path / "profile",
        tmp_path / "job" / REPORT,
        f"--screenshot={drawn}",
        "--window-size=1280,1600",
    )
    with Image.open(drawn) as picture:
        shown = picture.convert("RGB")
    width, height = shown.size
    pixels = shown.tobytes()

    def columns_of(wanted: tuple[int, int, int]) -> set[int]:
        return {
            nth % width
            for nth in range(width * height)
            if all(abs(pixels[3 * nth + c] - wanted[c]) < 40 for c in range(3))
        }

    # In the same rows of the page: the input at the left, then the place, and right of both the patch.
    blue, green = columns_of((0, 0, 255)), columns_of((0, 160, 0))
    patch = {column for column in blue if column > max(green)}
    assert len(patch) > 60
    assert len(patch) == max(patch) - min(patch) + 1
