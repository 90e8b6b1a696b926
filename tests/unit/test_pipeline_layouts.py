"""Layout `tar` holds what layout `files` holds, in the same bytes every time, and leaves no rubbish."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import tarfile
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.report_job import data_of, read_html
from tests.unit.shards import FIT, SMALL, WrappedStore, objects_of, rows_of, run
from tests.unit.standin import make_job, noise_images
from worker.contract import keys
from worker.contract.errors import StorageError, StorageFull
from worker.contract.jobs import Request
from worker.pipeline import ShardResult, compact
from worker.pipeline.layouts import TarLayout
from worker.pipeline.writing import Encoder
from worker.report import write_report
from worker.storage import Store, open_store
from worker.storage.standing import still_to_do

SPECS = ("pool1:all", "pool3:max", "pool2:top:2", "conv1_1:unit:9,2")
PLACES = ("key", "offset", "length", "input_key", "input_offset", "input_length")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "job")


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, of this test alone."""
    folder = tmp_path / "spool"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def _images(folder: Path) -> list[Path | str]:
    """Photographs of several sizes, so that they do not leave the network as they come; two are bad."""
    images: list[Path | str] = [*noise_images(folder, [(50 + 9 * (n % 3), 70) for n in range(20)])]
    images[3] = "/nowhere/gone.png"
    broken = folder / "broken.png"
    broken.write_bytes(b"no image")
    images[11] = broken
    return images


def _request(layout: str, picture_format: str = "png", **options: Any) -> Request:
    return Request.model_validate(
        {"specs": SPECS, "preprocessing": FIT, "format": picture_format, "layout": layout, **options}
    )


def _the_tar(store: Store) -> str:
    (key,) = store.list("recon/")
    return key


@pytest.mark.parametrize("picture_format", ["npy", "png", "webp"])
def test_tar_and_files_hold_the_same_bytes_and_tell_the_same(tmp_path: Path, picture_format: str) -> None:
    images = _images(tmp_path)
    stores = {layout: open_store(tmp_path / layout) for layout in ("files", "tar")}
    for layout, store in stores.items():
        job = make_job(store, images, _request(layout, picture_format), batch_size=3)
        assert run(store, job) == ShardResult(0, 20, 2, committed=True)
    files, tar = (rows_of(stores[layout]) for layout in ("files", "tar"))
    archive = stores["tar"].read(_the_tar(stores["tar"]))
    assert len(files) == len(tar) == 18 * 6 + 2 * 4
    for of_file, member in zip(files, tar, strict=True):
        for name in of_file.keys() - {*PLACES, "seconds"}:
            assert of_file[name] == member[name]
        if of_file["status"] == "failed":
            assert [row[name] for row in (of_file, member) for name in PLACES] == [None] * 12
            continue
        for start in ("", "input_"):
            key, offset, length = (member[f"{start}{name}"] for name in ("key", "offset", "length"))
            assert key == _the_tar(stores["tar"])
            data = stores["tar"].read_range(key, offset, length)
            assert data == archive[offset : offset + length] == stores["files"].read(of_file[f"{start}key"])
            assert [of_file[f"{start}offset"], of_file[f"{start}length"]] == [None, None]
        picture = stores["tar"].read_range(member["key"], member["offset"], member["length"])
        assert hashlib.sha256(picture).hexdigest() == member["sha256"]


def test_the_archive_is_named_by_its_hash_and_plain_tar_unpacks_it_to_the_files(tmp_path: Path) -> None:
    images = _images(tmp_path)
    files, tar = open_store(tmp_path / "files"), open_store(tmp_path / "tar")
    for store, layout in ((files, "files"), (tar, "tar")):
        run(store, make_job(store, images, _request(layout), batch_size=3))
    digest = hashlib.sha256(tar.read(_the_tar(tar))).hexdigest()
    assert _the_tar(tar) == f"recon/000000-{digest[:12]}.tar"
    assert list(tar.list("inputs/")) == []

    path = tmp_path / "tar" / _the_tar(tar)
    expected = objects_of(files, "recon/") | objects_of(files, "inputs/")
    listed = subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True)
    assert (sorted(listed.stdout.splitlines()), listed.stderr) == (sorted(expected), "")
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "xf", path, "-C", tmp_path / "unpacked"], check=True)
    assert objects_of(open_store(tmp_path / "unpacked")) == expected
    with tarfile.open(path) as archive:
        for member in archive:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")


def test_the_archive_is_the_same_whichever_image_is_encoded_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = _images(tmp_path)
    stores = [open_store(tmp_path / name) for name in ("first", "second", "third")]
    jobs = [make_job(store, images, _request("tar"), batch_size=3) for store in stores]
    for store, job in zip(stores[:2], jobs[:2], strict=True):
        run(store, job)
    # Given a run in which the image that leaves the network first is encoded after the second
    second_is_encoded = threading.Event()
    order: list[str] = []
    really_encode = Encoder.encode

    def encode(encoder: Encoder, computed: Any) -> Any:
        order.append(computed.image.entry.key)
        if len(order) == 1:
            assert second_is_encoded.wait(30)
            return really_encode(encoder, computed)
        encoded = really_encode(encoder, computed)
        second_is_encoded.set()
        return encoded

    monkeypatch.setattr(Encoder, "encode", encode)
    run(stores[2], jobs[2])
    assert second_is_encoded.is_set()
    assert (
        objects_of(stores[0], "recon/") == objects_of(stores[1], "recon/") == objects_of(stores[2], "recon/")
    )


def test_an_image_that_stands_twice_has_its_bytes_twice(store: Store, tmp_path: Path) -> None:
    (path,) = noise_images(tmp_path, [(40, 40)])
    run(store, make_job(store, [path, path], _request("tar")))
    rows = rows_of(store)
    offsets = [row["offset"] for row in rows]
    assert len(set(offsets)) == len(rows) == 2 * 6
    for row in rows:
        picture = store.read_range(row["key"], row["offset"], row["length"])
        assert hashlib.sha256(picture).hexdigest() == row["sha256"]


def test_a_shard_of_bad_images_alone_has_no_archive(store: Store) -> None:
    job = make_job(store, ["/nowhere/1.jpg", "/nowhere/2.jpg"], _request("tar"))
    assert run(store, job) == ShardResult(0, 2, 2, committed=True)
    assert list(store.list("recon/")) == []


def test_the_archive_stands_before_the_record(store: Store, tmp_path: Path) -> None:
    written: list[str] = []
    wrapped = WrappedStore(store, written.append)
    run(wrapped, make_job(store, _images(tmp_path), _request("tar")))
    assert written == [_the_tar(store), keys.shard_key(0)]


@pytest.mark.parametrize("picture_format", ["png", "webp", "npy"])
def test_the_page_of_a_tar_job_has_the_pictures_of_a_files_job(tmp_path: Path, picture_format: str) -> None:
    images = _images(tmp_path)
    pages = []
    for layout in ("files", "tar"):
        store = open_store(tmp_path / layout)
        job = make_job(store, images, _request(layout, picture_format), shard_size=8)
        for shard in range(3):
            run(store, job, shard=shard)
        write_report(store, job, compact(store, job))
        pages.append(read_html(store.read(keys.REPORT).decode()))
    pictures = [
        [data_of(node.attributes["src"]) for node in page.all("img")]
        + [data_of(node.attributes["href"]) for node in page.all("image")]
        for page in pages
    ]
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) == 18 * (1 if picture_format == "npy" else 7)


# Temporary files


def test_the_archive_is_gathered_in_a_temporary_file_that_is_gone_at_the_end(
    store: Store, tmp_path: Path, spool: Path
) -> None:
    seen: set[int] = set()
    job = make_job(store, _images(tmp_path), _request("tar"))
    run(store, job, on_image=lambda *_: seen.add(len(list(spool.iterdir()))))
    assert seen == {1}
    assert list(spool.iterdir()) == []


def test_layout_files_needs_no_temporary_file(store: Store, tmp_path: Path, spool: Path) -> None:
    spool.rmdir()
    assert run(store, make_job(store, _images(tmp_path), _request("files"))).committed


@pytest.mark.parametrize("interrupt", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_the_temporary_file_is_gone_after_an_exception(
    store: Store, tmp_path: Path, spool: Path, interrupt: type[BaseException]
) -> None:
    def on_image(n_done: int, _: int) -> None:
        if n_done == 10:
            assert len(list(spool.iterdir())) == 1
            raise interrupt

    job = make_job(store, _images(tmp_path), _request("tar"), batch_size=2)
    with pytest.raises(interrupt):
        run(store, job, on_image=on_image)
    assert list(spool.iterdir()) == []
    assert still_to_do(store, job).shards == [0]


@pytest.mark.parametrize("struck", ["put", "write_file"])
def test_the_temporary_file_is_gone_after_a_time_limit(
    store: Store, tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch, struck: str
) -> None:
    """A soft time limit raises by a signal in the calling thread, wherever that may be."""

    class TimeLimit(Exception):
        pass

    told = threading.Event()
    main_thread = threading.get_ident()

    def strike(*_: object) -> None:
        told.set()
        raise TimeLimit

    def hang(*_: object) -> None:
        assert len(list(spool.iterdir())) == 1
        if not told.is_set():
            signal.pthread_kill(main_thread, signal.SIGUSR1)
            told.wait(30)

    before = signal.signal(signal.SIGUSR1, strike)
    used: Store = WrappedStore(store, hang if struck == "write_file" else lambda _: None)
    if struck == "put":
        monkeypatch.setattr(TarLayout, "put", hang)
    job = make_job(store, _images(tmp_path), _request("tar"))
    try:
        with pytest.raises(TimeLimit):
            run(used, job)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert list(spool.iterdir()) == []
    assert still_to_do(store, job).shards == [0]


def test_a_full_disk_under_the_temporary_file_is_one_line_that_says_what_to_do(store: Store) -> None:
    words = r"^cannot write to /dev/full.*No space left.*TMPDIR[^\n]*$"
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(StorageFull, match=words):
        TarLayout(store, 0, full).put([("recon/a.png", b"picture")])


def test_a_full_disk_in_the_middle_ends_the_shard(
    store: Store, tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_open = tempfile.NamedTemporaryFile
    with Path("/dev/full").open("wb", buffering=0) as full:

        def open_full(**options: Any) -> Any:
            file = really_open(**options)
            monkeypatch.setattr(file, "write", full.write)
            return file

        monkeypatch.setattr(tempfile, "NamedTemporaryFile", open_full)
        job = make_job(store, _images(tmp_path), _request("tar", preprocessing=SMALL))
        with pytest.raises(StorageFull, match="No space left"):
            run(store, job)
    assert list(spool.iterdir()) == []
    assert [key for key in store.list("") if not key.startswith("manifest/")] == []


def test_where_no_temporary_file_can_be_made_the_error_says_so(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(StorageError, match=r"^cannot make a temporary file.*No such file.*TMPDIR"):
        run(store, make_job(store, _images(tmp_path), _request("tar")))
