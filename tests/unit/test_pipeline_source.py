"""Which files are read as images, and what is said of the others."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from worker.contract.errors import ImageError, ImageNotFound, ImageTooLarge, ImageUnreadable, StorageError
from worker.pipeline.source import read_image

LIMIT = 1000


def test_a_file_comes_byte_for_byte_up_to_the_limit(tmp_path: Path) -> None:
    data = bytes(range(250)) * 4
    path = tmp_path / "ünïcode name.jpg"
    path.write_bytes(data)
    assert read_image(str(path), LIMIT) == data


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing: reading it would not end
    with pytest.raises(ImageTooLarge, match="1099511627776 bytes, more than the 1000 allowed"):
        read_image(str(path), LIMIT)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.jpg").touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    cases: list[tuple[str, type[ImageError], str]] = [
        ("absent.jpg", ImageNotFound, "no file"),
        ("empty.jpg/a.jpg", ImageNotFound, "no file"),
        ("x" * 300, ImageNotFound, "no file"),
        ("null\0.jpg", ImageNotFound, "null"),
        ("folder", ImageUnreadable, "folder"),
        ("empty.jpg", ImageUnreadable, "empty"),
        ("pipe.jpg", ImageUnreadable, "pipe"),
        ("loop.jpg", ImageUnreadable, "symbolic links"),
    ]
    for name, error, words in cases:
        with pytest.raises(error, match=words):
            read_image(str(tmp_path / name), LIMIT)
    with pytest.raises(ImageUnreadable, match="device"):
        read_image("/dev/zero", LIMIT)


def test_a_file_without_the_right_to_read_says_so(tmp_path: Path) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(b"1")
    path.chmod(0)
    as_root = os.geteuid() == 0
    try:
        if as_root:
            os.seteuid(65534)
        with pytest.raises(ImageUnreadable, match="Permission denied"):
            read_image(str(path), LIMIT)
    finally:
        if as_root:
            os.seteuid(0)


def test_a_machine_out_of_file_descriptors_is_not_the_images_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"1")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(StorageError, match="Too many open files"):
            read_image(str(path), LIMIT)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
