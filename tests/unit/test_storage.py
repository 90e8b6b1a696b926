"""What every storage backend must do: add a backend to `BACKENDS` and all of it is asked of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.contract.errors import ObjectNotFound, StorageDenied, StorageError, UsageError
from worker.storage import Store, open_store

BACKENDS: dict[str, Callable[[Path], Store]] = {"folder": lambda tmp_path: open_store(tmp_path / "place")}


@pytest.fixture(params=sorted(BACKENDS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return BACKENDS[request.param](tmp_path)


def test_what_was_written_is_read_back_byte_for_byte(store: Store) -> None:
    data = bytes(range(256)) * 1000
    assert store.write("recon/pool5-max/a.png", data)
    assert store.read("recon/pool5-max/a.png") == data
    assert store.write("empty", b"")
    assert store.read("empty") == b""


def test_a_second_write_replaces_the_first(store: Store) -> None:
    store.write("a", b"a long first version")
    assert store.write("a", b"short")
    assert store.read("a") == b"short"


def test_if_absent_leaves_what_stands_alone(store: Store) -> None:
    assert store.write("shards/000000.parquet", b"mine", if_absent=True)
    assert not store.write("shards/000000.parquet", b"theirs", if_absent=True)
    assert store.read("shards/000000.parquet") == b"mine"


def test_exactly_one_of_eight_racers_commits(store: Store) -> None:
    for race in range(20):
        barrier = threading.Barrier(8)

        def commit(racer: int, race: int = race, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return store.write(f"race/{race}", bytes([racer]) * 10_000, if_absent=True)

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(commit, range(8)))
        assert won.count(True) == 1
        assert store.read(f"race/{race}") == bytes([won.index(True)]) * 10_000
    assert list(store.list("")) == sorted(f"race/{race}" for race in range(20))


def test_a_reader_never_sees_half_an_object(store: Store) -> None:
    versions = {bytes([n]) * (50_000 * n) for n in range(1, 5)}
    store.write("a", min(versions))
    writing = threading.Event()

    def write() -> None:
        for _ in range(25):
            for version in versions:
                store.write("a", version)
        writing.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen: set[bytes] = set()
    listed: set[str] = set()
    while not writing.is_set():
        seen.add(store.read("a"))
        listed.update(store.list(""))
    writer.join()
    assert seen <= versions
    assert listed == {"a"}


def test_a_missing_object_is_not_found_and_does_not_exist(store: Store) -> None:
    store.write("folder/a", b"1")
    for key in ("b", "folder", "folder/b", "folder/a/b"):
        assert not store.exists(key)
        with pytest.raises(ObjectNotFound, match=key):
            store.read(key)
    assert store.exists("folder/a")


def test_an_untouched_place_is_empty(store: Store) -> None:
    assert list(store.list("")) == []
    assert not store.exists("job.json")


def test_list_takes_the_prefix_as_text_and_sorts_whole_keys(store: Store) -> None:
    keys = ["a/b", "a.png", "a/b.png", "ab/c", "b", "a/b-c/d", "a0"]
    for key in keys:
        store.write(f"x/{key}", b"")
    assert list(store.list("")) == sorted(f"x/{key}" for key in keys)
    assert list(store.list("x/a")) == sorted(f"x/{key}" for key in keys if key.startswith("a"))
    assert list(store.list("x/a/b")) == ["x/a/b", "x/a/b-c/d", "x/a/b.png"]
    assert list(store.list("nothing")) == []
    assert list(store.list("x/b/")) == []


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../a", "a/../b", "a/./b", ".", "a//b", "a/", "a\\b", "a\0b"]
)
def test_a_key_that_could_leave_the_place_is_refused(store: Store, key: str) -> None:
    for act in (store.read, store.exists, lambda key: store.write(key, b"")):
        with pytest.raises(StorageError, match="not allowed"):
            act(key)


def test_list_cannot_leave_the_place(store: Store) -> None:
    for prefix in ("../", "/etc/", "a/../../"):
        with pytest.raises(StorageError, match="not allowed"):
            list(store.list(prefix))


def test_the_place_opens_the_same_store_again(store: Store) -> None:
    store.write("a", b"1")
    assert open_store(store.place).read("a") == b"1"
    assert open_store(store.place).place == store.place


_PARTS = st.text("ab.-_é ", min_size=1, max_size=4).filter(lambda part: part not in (".", ".."))


@given(st.lists(st.tuples(st.lists(_PARTS, min_size=1, max_size=3).map("/".join), st.binary(max_size=8))))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_a_store_behaves_as_a_dictionary(store: Store, writes: list[tuple[str, bytes]]) -> None:
    shutil.rmtree(store.place, ignore_errors=True)
    model: dict[str, bytes] = {}
    for key, data in writes:
        # A folder cannot hold both "a" and "a/b".
        if any(other.startswith(f"{key}/") or key.startswith(f"{other}/") for other in model):
            continue
        store.write(key, data)
        model[key] = data
    assert list(store.list("")) == sorted(model)
    assert {key: store.read(key) for key in model} == model


# What only a folder can show.


@contextmanager
def _without_privileges() -> Iterator[None]:
    """Root may do everything: act as nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_without_rights_is_denied_not_absent(tmp_path: Path) -> None:
    store = open_store(tmp_path / "place")
    store.write("a", b"1")
    Path(store.place).chmod(0)
    try:
        with _without_privileges():
            for act in (
                lambda: store.read("a"),
                lambda: store.exists("a"),
                lambda: store.write("b", b""),
                lambda: list(store.list("")),
            ):
                with pytest.raises(StorageDenied, match="rights"):
                    act()
    finally:
        Path(store.place).chmod(0o755)


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write("a", b"1")
    with pytest.raises(StorageError, match="cannot write 'a/b'"):
        store.write("a/b", b"2")
    with pytest.raises(StorageError, match="cannot write"):
        store.write("x" * 300, b"")
    assert list(store.list("")) == ["a"]


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write("folder/inside", b"")
    with pytest.raises(StorageError):
        store.write("folder", b"cannot replace a folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_objects_are_as_open_as_the_umask_says(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        open_store(tmp_path).write("a", b"")
        open_store(tmp_path).write("b", b"", if_absent=True)
    finally:
        os.umask(umask)
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "b")} == {0o644}


_FILL = """
import sys
from worker.contract.errors import StorageFull
from worker.storage import open_store
store = open_store(sys.argv[1])
store.write("before", b"kept")
try:
    store.write("large", bytes(1 << 20))
except StorageFull as error:
    print(error)
assert list(store.list("")) == ["before"] and store.read("before") == b"kept"
store.write("after", b"there is room again")
"""


def test_a_full_disk_says_so_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    # Given a disk of 256 KiB, in a namespace of its own that ends with the process
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small disk (unshare)")
    script = f'mount -t tmpfs -o size=256k none "{tmp_path}" && exec "$0" -c "$1" "{tmp_path}"'
    # When more is written than it holds
    done = subprocess.run(
        [*unshare, "sh", "-c", script, sys.executable, _FILL], capture_output=True, text=True, timeout=60
    )
    # Then
    assert done.returncode == 0, done.stderr
    assert "cannot write 'large'" in done.stdout
    assert "No space left" in done.stdout


def test_a_place_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/of-somebody")
    assert open_store("out/../out2").place == str(tmp_path / "out2")
    assert open_store("~/out").place == "/home/of-somebody/out"


@pytest.mark.parametrize(
    ("place", "words"),
    [("s3://bucket/prefix", "S3 is not supported"), ("gs://bucket", "gs://"), ("", "empty")],
)
def test_a_place_that_is_no_folder_is_a_wrong_use(place: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        open_store(place)
