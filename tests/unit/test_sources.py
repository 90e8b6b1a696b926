"""From what a user names to the images of a job."""

from __future__ import annotations

import json
import os
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
        ("m.txt", "s3://bucket/a.png\n", "only files"),
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
