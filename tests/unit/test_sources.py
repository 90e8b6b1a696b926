"""From what a user names to the images of a job: files, folders, manifests; buckets: test_sources_s3.py."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from producer.sources import find_images
from worker.contract.errors import SourceError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("b.JPG", "a.png", "notes.txt.bak", ".hidden.png", "sub/c.webp", ".cache/d.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def test_a_folder_gives_its_images_sorted_and_no_hidden_ones(photos: Path) -> None:
    assert list(find_images([str(photos)])) == [
        str(photos / name) for name in ("a.png", "b.JPG", "sub/c.webp")
    ]


def test_an_image_that_is_named_twice_comes_once_where_it_was_first(photos: Path) -> None:
    sources = [str(photos / "b.JPG"), str(photos), str(photos / "a.png")]

    assert list(find_images(sources)) == [str(photos / name) for name in ("b.JPG", "a.png", "sub/c.webp")]


def test_a_named_file_is_taken_whatever_its_suffix(photos: Path) -> None:
    assert list(find_images([str(photos / "notes.txt.bak")])) == [str(photos / "notes.txt.bak")]


def test_relative_sources_become_absolute(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)

    assert list(find_images(["photos/a.png"])) == [str(photos / "a.png")]


def test_results_of_an_earlier_job_are_no_photographs(photos: Path) -> None:
    job = photos / "out" / "cats-0123456789"
    (job / "manifest").mkdir(parents=True)
    (job / "job.json").touch()
    (job / "recon.png").touch()

    assert str(job / "recon.png") not in list(find_images([str(photos)]))


def write_manifest(path: Path, images: list[str]) -> None:
    match path.suffix:
        case ".txt":
            path.write_text("\n".join([*images, ""]))
        case ".csv":
            path.write_text(
                "\ufeffid,image\n" + "".join(f'{n},"{image}"\n' for n, image in enumerate(images))
            )
        case ".jsonl":
            path.write_text("\n".join(json.dumps({"image": image, "id": 1}) for image in images) + "\n\n")
        case _:
            pq.write_table(pa.table({"id": [0] * len(images), "image": images}), path)


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl", ".parquet"])
def test_a_manifest_gives_its_images_relative_to_itself(tmp_path: Path, suffix: str) -> None:
    manifest = tmp_path / f"list{suffix}"
    write_manifest(manifest, ["sub/one, two.png", "/data/three.png", "gone.jpg"])

    assert list(find_images([str(manifest)])) == [
        str(tmp_path / "sub/one, two.png"),
        "/data/three.png",
        str(tmp_path / "gone.jpg"),
    ]


def test_standard_input_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert list(find_images(["-"], stdin=["a.png\n", "\n", "/b.png\r\n"])) == [
        str(tmp_path / "a.png"),
        "/b.png",
    ]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.csv", "path\na.png\n", "no column 'image'"),
        ("m.jsonl", '{"image": "a.png"}\n{"path": "b.png"}\n', "line 2"),
        ("m.jsonl", '{"image": 7}\n', "is no text"),
        ("m.jsonl", "[[[\n", "line 1"),
        ("m.parquet", "not parquet", "no readable Parquet"),
        ("m.jsonl", '{"image": "\\ud800.png"}\n', "line 1: .*not UTF-8"),
        ("m.csv", 'image\na.png\n"\n', "line 3: .*end of data"),
        ("m.txt", "\n\n", "holds no image"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_named_with_the_reason(
    tmp_path: Path, name: str, content: str, reason: str
) -> None:
    path = tmp_path / name
    path.write_text(content)

    with pytest.raises(SourceError, match=reason) as caught:
        list(find_images([str(path)]))
    assert name in str(caught.value)


def test_a_manifest_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_bytes(b"caf\xe9.png\n")

    with pytest.raises(SourceError, match="not UTF-8"):
        list(find_images([str(tmp_path / "m.txt")]))


REFUSED = [
    ("http://host/a.png", "neither a file nor"),
    ("photos/file:///etc/passwd", "neither a file nor"),
    ("s3://bucket/photos/../a.png", "a part '..'"),
    ("s3://bucket", "names no object"),
    ("../out/a.png", "does not lie under an allowed root"),
    ("/etc/passwd", "does not lie under an allowed root"),
    ("link/a.png", "does not lie under an allowed root"),
    ("s3://bucket/photos2/a.png", "does not lie under an allowed root"),
]


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(("line", "reason"), REFUSED)
def test_a_line_that_leaves_the_roots_is_refused_with_its_number(
    tmp_path: Path, suffix: str, line: str, reason: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path)
    manifest = tmp_path / "in" / f"list{suffix}"
    write_manifest(manifest, ["a.png", "s3://bucket/photos/a.png", line])
    number = 4 if suffix == ".csv" else 3

    with pytest.raises(SourceError, match=f"list{suffix}' line {number}: .*{re.escape(reason)}"):
        list(find_images([str(manifest)], [str(tmp_path / "in"), "s3://bucket/photos"]))


def test_a_line_of_standard_input_that_is_not_allowed_is_named_with_its_number() -> None:
    with pytest.raises(SourceError, match=r"standard input line 3: 'ftp://host/a.png'"):
        list(find_images(["-"], stdin=["a.png", "", "ftp://host/a.png"]))


def test_a_link_in_a_folder_that_leaves_the_roots_is_refused(photos: Path, tmp_path: Path) -> None:
    (photos / "z.png").symlink_to(tmp_path / "secret.png")

    with pytest.raises(SourceError, match=r"photos': .*z\.png' does not lie under an allowed root"):
        list(find_images([str(photos)], [str(photos)]))


@pytest.mark.parametrize("source", ["http://host/a.png", "file:///a.png"])
def test_a_source_of_another_scheme_is_refused(source: str) -> None:
    with pytest.raises(SourceError, match="neither a file nor"):
        list(find_images([source]))


def test_one_file_that_is_spelled_in_several_ways_comes_once(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text(
        f"a/b.png\n./a/b.png\na//b.png\na/./b.png\n{tmp_path}/a/b.png\na/b.png/.\n"
    )

    assert list(find_images([str(tmp_path / "m.txt")])) == [str(tmp_path / "a/b.png")]


def test_two_dots_stay_for_they_may_lead_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("link/../b.png\n")

    assert list(find_images([str(tmp_path / "m.txt")])) == [f"{tmp_path}/link/../b.png"]


def test_names_may_hold_what_file_systems_allow(tmp_path: Path) -> None:
    names = ["sp ace .png", 'qu"ote.png', "new\nline.png", "ünï.png", "trailing.png ", "back\\slash.png"]
    manifest = tmp_path / "m.jsonl"
    write_manifest(manifest, names)

    assert list(find_images([str(manifest)])) == [f"{tmp_path}/{name}" for name in names]


def test_sources_are_read_as_a_stream() -> None:
    def endless() -> Iterator[str]:
        for number in itertools.count():
            yield f"/{number % 1000}.png\n"

    images = find_images(["-"], stdin=endless())

    assert list(itertools.islice(images, 1000)) == [f"/{number}.png" for number in range(1000)]


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere.*does not exist"):
        list(find_images([str(tmp_path / "nowhere")]))


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(SourceError, match=r"empty.*holds no image"):
        list(find_images([str(tmp_path / "empty")]))


def test_a_file_name_that_is_not_utf_8_is_refused_and_shown(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).touch()

    with pytest.raises(SourceError, match=r"caf\\udce9.*rename"):
        list(find_images([str(tmp_path)]))


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(SourceError, match="null"):
        list(find_images(["a\0.png"]))


def test_a_source_that_cannot_be_looked_at_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.txt").symlink_to(tmp_path / "m.txt")

    with pytest.raises(SourceError, match=r"m\.txt.*cannot be read: .*symbolic links"):
        list(find_images([str(tmp_path / "m.txt")]))
