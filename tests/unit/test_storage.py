"""What every storage backend must do: add a backend to `BACKENDS` and all of it is asked of it.

What only S3 can show is in `test_s3_*.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cluster import TIMEOUT_S
from tests.memory_store import MemoryStore
from tests.s3_server import UseS3, localbucket_server
from worker.contract.errors import ObjectNotFound, StorageDenied, StorageError, UsageError
from worker.contract.roots import SCHEMES
from worker.storage import Store, open_store
from worker.storage.client import s3_client
from worker.storage.factory import OPENERS

NewStores = Callable[[pytest.FixtureRequest], Iterator[Store]]
"""Gives one empty store of a kind after the other."""


def _places(start: str, needs: str) -> NewStores:
    """Numbered places that begin alike; `{}` is the value of the fixture `needs`."""
    return lambda request: (
        open_store(f"{start.format(request.getfixturevalue(needs))}{number}") for number in count()
    )


BACKENDS: Mapping[str, NewStores] = {
    "folder": _places("{}/place-", "tmp_path"),
    "memory": lambda _: (MemoryStore() for _ in count()),
    "s3-moto": _places("s3://{}/place ", "s3_bucket"),
    "s3-localbucket": _places("s3://{}/place ", "localbucket_bucket"),
}
LASTING = [backend for backend in BACKENDS if backend != "memory"]


@pytest.fixture(scope="module")
def localbucket_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with localbucket_server(tmp_path_factory.mktemp("localbucket")) as endpoint_url:
        yield endpoint_url


@pytest.fixture
def localbucket_bucket(localbucket_endpoint: str, use_s3: UseS3) -> str:
    use_s3(localbucket_endpoint)
    name = f"bucket-{uuid.uuid4().hex}"
    s3_client().create_bucket(Bucket=name)
    return name


@pytest.fixture(params=[*BACKENDS])
def new_stores(request: pytest.FixtureRequest) -> Iterator[Store]:
    return BACKENDS[request.param](request)


@pytest.fixture
def store(new_stores: Iterator[Store]) -> Store:
    return next(new_stores)


@pytest.fixture(params=LASTING)
def lasting_store(request: pytest.FixtureRequest) -> Store:
    return next(BACKENDS[request.param](request))


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
    written = threading.Event()

    def write() -> None:
        for _ in range(25):
            for version in versions:
                store.write("a", version)
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen: set[bytes] = set()
    listed: set[str] = set()
    over = False
    while not over:
        over = written.is_set()
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


def test_what_was_deleted_is_gone_and_to_delete_nothing_is_no_error(store: Store) -> None:
    store.write("a/b", b"1")
    store.write("a/c", b"2")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("never/was")
    assert [*store.list("")] == ["a/c"]
    assert not store.exists("a/b")
    with pytest.raises(StorageError, match="not allowed"):
        store.delete("../a/c")


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


def test_folders_are_the_first_parts_of_deeper_keys(store: Store) -> None:
    assert [*store.folders()] == []
    for key in ("b/1", "b/2/3", "a b/x", "top", "é/x"):
        store.write(key, b"1")
    assert [*store.folders()] == ["a b", "b", "é"]


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../a", "a/../b", "a/./b", ".", "a//b", "a/", "a\\b", "a\0b"]
)
def test_a_key_that_could_leave_the_place_is_refused(store: Store, key: str) -> None:
    for act in (
        store.read,
        store.exists,
        lambda key: store.write(key, b""),
        lambda key: store.read_range(key, 0, 1),
        lambda key: store.write_file(key, Path(__file__)),
        lambda key: store.link(key, 60),
    ):
        with pytest.raises(StorageError, match="not allowed"):
            act(key)


def test_list_cannot_leave_the_place(store: Store) -> None:
    for prefix in ("../", "/", "/etc", "/etc/", "a/../../"):
        with pytest.raises(StorageError, match="not allowed"):
            list(store.list(prefix))


def test_the_place_opens_the_same_store_again(lasting_store: Store) -> None:
    lasting_store.write("a", b"1")
    assert open_store(lasting_store.place).read("a") == b"1"
    assert open_store(f"{lasting_store.place}/").place == lasting_store.place


def test_a_link_gives_the_object(lasting_store: Store) -> None:
    lasting_store.write("a folder/ä+#?.png", b"a picture")
    with urllib.request.urlopen(lasting_store.link("a folder/ä+#?.png", 60)) as answer:  # noqa: S310 (our own server)
        assert answer.read() == b"a picture"


def test_ranges_are_read_exactly_or_not_at_all(store: Store) -> None:
    store.write("a.tar", bytes(range(100)))
    assert store.read_range("a.tar", 0, 100) == bytes(range(100))
    assert store.read_range("a.tar", 10, 1) == bytes([10])
    assert store.read_range("a.tar", 90, 10) == bytes(range(90, 100))
    for offset, length in ((90, 11), (100, 1), (1000, 5), (-5, 5), (0, 0), (0, 2**60)):
        with pytest.raises(StorageError):
            store.read_range("a.tar", offset, length)
    with pytest.raises(ObjectNotFound):
        store.read_range("b.tar", 0, 1)


def test_a_local_file_is_copied_and_stays(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 1000)
    store.write("x/copy", b"what stood there")
    store.write_file("x/copy", file)
    assert store.read("x/copy") == file.read_bytes() == bytes(range(256)) * 1000
    assert list(store.list("")) == ["x/copy"]


def test_a_local_file_that_is_not_there_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*nothing: No such file"):
        store.write_file("copy", tmp_path / "nothing")
    assert not store.exists("copy")


_PARTS = st.text("ab.-_é ", min_size=1, max_size=4).filter(lambda part: part not in (".", ".."))


@given(st.lists(st.tuples(st.lists(_PARTS, min_size=1, max_size=3).map("/".join), st.binary(max_size=8))))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
def test_a_store_behaves_as_a_dictionary(
    new_stores: Iterator[Store], writes: list[tuple[str, bytes]]
) -> None:
    store = next(new_stores)
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
        [*unshare, "sh", "-c", script, sys.executable, _FILL],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    # Then
    assert done.returncode == 0, done.stderr
    assert "cannot write 'large'" in done.stdout
    assert "No space left" in done.stdout


def test_every_scheme_can_be_opened_and_nothing_else() -> None:
    assert OPENERS.keys() == SCHEMES.keys()


def test_a_place_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/of-somebody")
    assert open_store("out/../out2").place == str(tmp_path / "out2")
    assert open_store("~/out").place == "/home/of-somebody/out"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("gs://bucket", "gs://"),
        ("S3://bucket", "S3://"),
        ("", "empty"),
        ("s3://", "names no bucket"),
        ("s3:///prefix", "names no bucket"),
        ("s3://a b/prefix", "names no bucket"),
        ("s3://user@bucket/prefix", "names no bucket"),
        ("s3://bucket//prefix", "cannot be a place"),
        ("s3://bucket/a/../b", "cannot be a place"),
        ("s3://bucket/a\\b", "cannot be a place"),
    ],
)
def test_a_place_that_cannot_be_is_a_wrong_use(place: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        open_store(place)
