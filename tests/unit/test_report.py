"""The page: what it says under which picture, and that nobody's file name can do anything in it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.report_job import (
    SIZE,
    Box,
    FinishedJob,
    Node,
    box_of,
    data_of,
    finished_job,
    read_html,
)
from worker.contract.errors import ObjectNotFound
from worker.contract.formats import PICTURE_FORMATS
from worker.contract.keys import image_key, input_key
from worker.contract.records import WEIGHTS_METADATA, Row
from worker.report import model
from worker.report.page import number

POOLS = ["pool1", "pool2", "pool3", "pool4", "pool5"]


def article_of(page: Node, image: str) -> Node:
    return page.one("article", id=f"image-{image_key(image)}")


def cell_of(article: Node, spec: str) -> Node:
    return article.one("figure", data_spec=spec)


def layers_in(article: Node) -> list[str]:
    return [column.attributes["aria-label"] for column in article.all("section", class_="column")]


@pytest.fixture
def two_photographs(tmp_path: Path) -> FinishedJob:
    job = finished_job(tmp_path)
    job.add("/photos/cat.png")
    job.add("/photos/dog.png")
    return job


def test_each_picture_stands_over_its_own_unit_place_activation_and_window(
    two_photographs: FinishedJob,
) -> None:
    page = read_html(two_photographs.write())
    assert len(two_photographs.rows) == 20
    for row in two_photographs.rows:
        cell = cell_of(article_of(page, row.image), row.spec)
        assert row.key is not None
        assert data_of(cell.one("img").attributes["src"]) == two_photographs.store.read(row.key)
        facts = cell.one("figcaption").facts()
        assert facts["scale"] == f"± {row.scale:g}"
        if row.selection == "all":
            assert list(facts) == ["scale"]
            continue
        left, top, right, bottom = box_of(row)
        assert facts["unit"] == str(row.unit)
        assert facts["place y, x"] == f"{row.y}, {row.x}"
        assert facts["activation"] == f"{row.activation:g}"
        assert facts["window"] == f"{right - left} × {bottom - top} px"
        assert facts["from x, y"] == f"{left}, {top}"


def test_columns_are_the_layers_in_network_order_with_all_above_max(tmp_path: Path) -> None:
    specs = [f"pool{block}:{selection}" for block in (3, 1, 5, 2, 4) for selection in ("max", "all")]
    job = finished_job(tmp_path, specs)
    job.add("cat.png")
    article = article_of(read_html(job.write()), "cat.png")
    assert layers_in(article) == POOLS
    for column in article.all("section", class_="column"):
        cells = column.all("figure")
        assert [cell.attributes["class"] for cell in cells] == ["all", "max"]
        assert [cell.attributes["style"] for cell in cells] == ["--row: 0", "--row: 1"]


def test_the_input_is_embedded_once_and_every_small_copy_refers_to_it(two_photographs: FinishedJob) -> None:
    text = two_photographs.write()
    page = read_html(text)
    for nth, image in enumerate(["/photos/cat.png", "/photos/dog.png"], start=1):
        article = article_of(page, image)
        original = article.one("image")
        assert data_of(original.attributes["href"]) == two_photographs.store.read(input_key(image_key(image)))
        assert text.count(original.attributes["href"]) == 1
        uses = article.all("use")
        assert len(uses) == 10
        assert {use.attributes["href"] for use in uses} == {f"#{original.attributes['id']}"}
        assert original.attributes["id"] == f"input-{nth}"


WINDOWS = st.tuples(st.integers(0, 58), st.integers(0, 42), st.integers(6, 64), st.integers(6, 48)).map(
    lambda edges: (edges[0], edges[1], min(edges[0] + edges[2], SIZE[0]), min(edges[1] + edges[3], SIZE[1]))
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(box=WINDOWS)
def test_the_frame_is_the_window_and_small_windows_get_a_ring_around_them(tmp_path: Path, box: Box) -> None:
    left, top, right, bottom = box
    job = finished_job(tmp_path, ["pool1:max"])
    job.add("cat.png", lambda row: replace(row, left=left, top=top, right=right, bottom=bottom))
    cell = cell_of(article_of(read_html(job.write()), "cat.png"), "pool1:max")
    place = cell.one("svg", class_="place")
    assert place.attributes["viewbox"] == f"0 0 {SIZE[0]} {SIZE[1]}"
    for group in ("halo", "mark"):
        frame = place.one("g", class_=group).one("rect").attributes
        assert [int(frame[name]) for name in ("x", "y", "width", "height")] == [
            left,
            top,
            right - left,
            bottom - top,
        ]
    rings = place.one("g", class_="mark").all("circle")
    assert bool(rings) == (max(right - left, bottom - top) < 0.12 * SIZE[0])
    for ring in rings:
        centre = (float(ring.attributes["cx"]), float(ring.attributes["cy"]))
        assert centre == ((left + right) / 2, (top + bottom) / 2)
        half_diagonal = ((right - left) ** 2 + (bottom - top) ** 2) ** 0.5 / 2
        assert float(ring.attributes["r"]) >= 0.9 * half_diagonal
    patch = cell.one("svg", class_="patch").one("svg").attributes
    assert patch["viewbox"] == f"{left} {top} {right - left} {bottom - top}"
    assert (patch["width"], patch["height"]) == (str(right - left), str(bottom - top))


def test_only_windows_that_a_screen_would_show_tiny_are_enlarged_in_squares(tmp_path: Path) -> None:
    job = finished_job(tmp_path, ["pool1:max", "pool5:max"])
    wide = {"pool1": 6, "pool5": 212}

    def on_a_large_input(row: Row) -> Row:
        return replace(
            row, left=0, top=0, right=wide[row.layer], bottom=wide[row.layer], width=224, height=224
        )

    job.add("cat.png", on_a_large_input)
    article = article_of(read_html(job.write()), "cat.png")
    assert cell_of(article, "pool1:max").one("img").attributes.get("class") == "enlarged"
    assert "class" not in cell_of(article, "pool5:max").one("img").attributes


def test_top_and_unit_are_strips_in_their_order_and_each_selection_has_its_row(tmp_path: Path) -> None:
    job = finished_job(tmp_path, ["pool5:unit:7,3", "pool1:all", "pool1:top:3", "conv3_2:top:2", "pool5:max"])
    job.add("cat.png")
    article = article_of(read_html(job.write()), "cat.png")
    assert layers_in(article) == ["pool1", "conv3_2", "pool5"]
    rows = {cell.attributes["data-spec"]: cell.attributes["style"] for cell in article.all("figure")[1:]}
    assert rows == {
        "pool1:all": "--row: 0",
        "pool5:max": "--row: 1",
        "conv3_2:top:2": "--row: 2",
        "pool1:top:3": "--row: 3",
        "pool5:unit:7,3": "--row: 4",
    }
    strip = cell_of(article, "pool5:unit:7,3").all("li")
    assert [item.facts()["unit"] for item in strip] == ["7", "3"]
    for spec in ("pool1:top:3", "pool5:unit:7,3"):
        of_spec = [row for row in job.rows if row.spec == spec]
        cell = cell_of(article, spec)
        frames = [rect.attributes for rect in cell.one("g", class_="mark").all("rect")]
        assert [(int(frame["x"]), int(frame["y"])) for frame in frames] == [
            (row.left, row.top) for row in of_spec
        ]
        for row, item in zip(of_spec, cell.all("li"), strict=True):
            assert item.facts()["place y, x"] == f"{row.y}, {row.x}"
            assert row.key is not None
            assert data_of(item.one("img").attributes["src"]) == job.store.read(row.key)


def test_a_single_named_unit_looks_like_max(tmp_path: Path) -> None:
    job = finished_job(tmp_path, ["pool5:unit:9"])
    job.add("cat.png")
    cell = cell_of(article_of(read_html(job.write()), "cat.png"), "pool5:unit:9")
    assert cell.facts()["unit"] == "9"
    assert "window" in cell.facts()
    assert not cell.all("li")


def test_a_long_strip_is_cut_and_says_how_much_is_in_the_index(tmp_path: Path) -> None:
    job = finished_job(tmp_path, ["pool1:top:28"])
    job.add("cat.png")
    cell = cell_of(article_of(read_html(job.write()), "cat.png"), "pool1:top:28")
    assert len(cell.all("li")) == model.MAX_UNITS == 25
    assert "3 more in index.parquet" in cell.text


def test_the_head_names_job_weights_preprocessing_counts_and_date(two_photographs: FinishedJob) -> None:
    two_photographs.add_failure("/photos/broken.png", "ImageUnreadable", "it is no image")
    page = read_html(two_photographs.write(metadata={WEIGHTS_METADATA: b"hed " + b"ab" * 32}))
    assert page.one("h1").text == "holiday-0123456789"
    head = page.one("dl", class_="head").facts()
    assert head == {
        "Network": "VGG-16",
        "Weights": "hed sha256 abababababab…",
        "Preprocessing": "crop to 224 px",
        "Images": "3 2 ok, 1 failed",
        "Date": "2026-03-04 05:06 UTC",
    }
    assert f"sha256 {'ab' * 32}" in page.one("section", id="settings").text


def test_weights_that_nobody_recorded_are_said_to_be_so(two_photographs: FinishedJob) -> None:
    page = read_html(two_photographs.write())
    assert page.one("dl", class_="head").facts()["Weights"] == "hed sha256 not recorded"


def test_each_failed_image_is_listed_once_with_class_and_message(two_photographs: FinishedJob) -> None:
    two_photographs.add_failure("/photos/a.png", "ImageUnreadable", "a.png is cut short; copy it again")
    two_photographs.add_failure("/photos/b.png", "ImageTooLarge", "b.png has too many pixels")
    page = read_html(two_photographs.write())
    lines = page.one("table", class_="failures").one("tbody").all("tr")
    assert [[cell.text for cell in line.children if isinstance(cell, Node)] for line in lines] == [
        ["/photos/a.png", "ImageUnreadable", "a.png is cut short; copy it again"],
        ["/photos/b.png", "ImageTooLarge", "b.png has too many pixels"],
    ]
    assert len(page.all("article")) == 2


def test_without_failures_there_is_no_such_section(two_photographs: FinishedJob) -> None:
    page = read_html(two_photographs.write())
    assert not page.all("section", id="failures")
    assert page.one("dl", class_="head").facts()["Images"] == "2 2 ok, 0 failed"


def test_a_job_in_which_all_failed_says_so(tmp_path: Path) -> None:
    job = finished_job(tmp_path)
    job.add_failure("a.png", "ImageNotFound", "it is gone")
    page = read_html(job.write())
    assert not page.all("article")
    assert "No image was reconstructed" in page.one("section", id="photographs").text
    assert "a.png" in page.one("section", id="failures").text


HOSTILE = [
    "/data/<script>alert(1)</script>.png",
    '/data/"><img src=x onerror=alert(1)>.png',
    "/data/' onmouseover='alert(1).png",
    "/data/</style></title><script>document.title=1</script>.png",
    "/data/{{ 7 * 7 }}{% raw %}&lt;b&gt;.png",
    "javascript:alert(1)",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_and_messages_are_shown_and_do_nothing(tmp_path: Path, name: str) -> None:
    job = finished_job(tmp_path)
    job.add(name)
    job.add_failure(f"{name}2", "ImageUnreadable", f"{name} is no image: <b>bold</b><script>1</script>")
    page = read_html(job.write())
    assert not page.all("script")
    assert len(page.all("img")) == 10
    assert name in page.one("article").text
    failures = page.one("table", class_="failures")
    assert not failures.all("b")
    assert f"{name} is no image: <b>bold</b><script>1</script>" in failures.text
    for node in (node for tag in ("img", "a", "svg", "div", "article", "bdi") for node in page.all(tag)):
        assert not [attribute for attribute in node.attributes if attribute.startswith("on")]
        assert not node.attributes.get("href", "").startswith("javascript")


def test_the_page_forbids_itself_scripts_and_the_network(two_photographs: FinishedJob) -> None:
    text = two_photographs.write()
    policy = read_html(text).one("meta", http_equiv="Content-Security-Policy").attributes["content"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    without_links = re.sub(r'<a href="https://arxiv\.org/abs/[\d.]+">', "", text)
    assert not re.findall(r"(?:https?:)?//[a-z]", without_links.replace("/photos/", ""))
    assert not re.findall(r"@import|url\(", text)


def test_every_jump_leads_somewhere_and_ids_are_unique(two_photographs: FinishedJob) -> None:
    two_photographs.add_failure("/photos/a.png", "ImageUnreadable", "no image")
    text = two_photographs.write()
    ids = re.findall(r'\sid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    references = re.findall(r'href="#([^"]*)"', text) + re.findall(r'aria-labelledby="([^"]*)"', text)
    assert set(references) <= set(ids)
    contents = read_html(text).one("ol", class_="contents").all("a")
    assert [link.text for link in contents] == ["cat.png", "dog.png"]


def test_every_picture_has_words_for_those_who_do_not_see_it(two_photographs: FinishedJob) -> None:
    page = read_html(two_photographs.write())
    pictures = page.one("section", id="photographs").all("img")
    assert len(pictures) == 20
    assert all(re.search(r"pool\d", picture.attributes["alt"]) for picture in pictures)
    for drawing in page.all("svg", role="img"):
        assert drawing.attributes["aria-label"]


def test_beyond_a_hundred_photographs_the_page_names_the_index(tmp_path: Path) -> None:
    job = finished_job(tmp_path, ["pool1:max"])
    for nth in range(102):
        job.add(f"{nth:03d}.png")
    page = read_html(job.write())
    assert [title.text for title in page.all("h3")] == [f"{nth:03d}.png" for nth in range(100)]
    assert "first 100 of 102 photographs" in page.one("section", id="photographs").text
    assert "index.parquet" in page.one("section", id="photographs").text


def test_a_page_that_grows_too_heavy_shows_fewer_photographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "MAX_PICTURE_BYTES", 1)
    job = finished_job(tmp_path)
    job.add("cat.png")
    job.add("dog.png")
    page = read_html(job.write())
    assert [title.text for title in page.all("h3")] == ["cat.png"]
    assert "first 1 of 2 photographs" in page.one("section", id="photographs").text


def test_a_long_list_of_failures_is_cut_and_names_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "MAX_FAILURES", 2)
    job = finished_job(tmp_path)
    for name in ("a", "b", "c"):
        job.add_failure(name, "ImageNotFound", "gone")
    failures = read_html(job.write()).one("section", id="failures")
    assert [row.one("th").text for row in failures.one("tbody").all("tr")] == ["a", "b"]
    assert "lists 2 of 3" in failures.text


@pytest.mark.parametrize(
    "picture_format", [n for n, known in PICTURE_FORMATS.items() if not known.media_type]
)
def test_of_a_format_that_browsers_do_not_show_the_page_says_where_the_files_stand(
    tmp_path: Path, picture_format: str
) -> None:
    job = finished_job(tmp_path, picture_format=picture_format)
    job.add("cat.png")
    page = read_html(job.write())
    assert not page.all("img")
    reading = page.one("section", class_="reading").text
    drawn = PICTURE_FORMATS[picture_format].holds == "picture"
    kind = "files, which browsers do not show" if drawn else "arrays, which are for programs"
    assert f"The reconstructions of this job are {picture_format} {kind}" in reading
    assert ("Grey is zero." in reading) is drawn
    assert "enlarged" not in reading
    for row in job.rows:
        cell = cell_of(article_of(page, row.image), row.spec)
        assert cell.one("code").text == row.key
        assert cell.one("figcaption").facts()["scale"] == f"± {row.scale:g}"
    assert data_of(page.one("image").attributes["href"]) == job.store.read(input_key(image_key("cat.png")))


def test_npy_in_an_archive_shows_the_range_of_bytes(tmp_path: Path) -> None:
    job = finished_job(tmp_path, ["pool1:all"], picture_format="npy")
    job.add("cat.png", lambda row: replace(row, key="recon/000000-0123456789ab.tar", offset=512, length=99))
    cell = cell_of(article_of(read_html(job.write()), "cat.png"), "pool1:all")
    assert cell.one("code").text == "recon/000000-0123456789ab.tar, 99 bytes from 512"


def test_values_that_are_not_finite_are_said_under_their_picture(tmp_path: Path) -> None:
    job = finished_job(tmp_path)
    job.add("cat.png", lambda row: replace(row, nonfinite=12) if row.spec == "pool4:all" else row)
    article = article_of(read_html(job.write()), "cat.png")
    assert cell_of(article, "pool4:all").facts()["not finite"] == "12 values"
    assert "not finite" not in cell_of(article, "pool5:all").facts()


def test_a_picture_that_is_gone_is_an_error_not_a_gap(two_photographs: FinishedJob) -> None:
    two_photographs.rows[3] = replace(two_photographs.rows[3], key="recon/gone.png")
    with pytest.raises(ObjectNotFound, match=r"recon/gone\.png"):
        two_photographs.write()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.0032149, "0.003215"),
        (12.3456, "12.35"),
        (999.96, "1000"),
        (1234.56, "1,235"),
        (-14060.2, "-14,060"),
        (2.13e9, "2.13e+09"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_are_four_digits_and_plain(value: float, text: str) -> None:
    assert number(value) == text
