"""A shard from S3 to S3 through a server that fails: what is done is right, and nothing is there twice."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fault_proxy import Fault, FaultProxy, Rule
from tests.length import AT_LENGTH
from tests.unit.shards import objects_of, rows_of, run
from tests.unit.standin import make_job, noise_images
from worker.contract import keys
from worker.contract.errors import StorageDenied, StorageError, StorageUnavailable
from worker.contract.jobs import Job, Layout, Preprocessing, Request
from worker.pipeline import ShardResult
from worker.storage import Store, open_store

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("short_pauses")]

N_IMAGES = 4
ATTEMPTS = 3
TIMEOUT_S = 1
SPECS = ("pool1:max", "pool2:all")
RECORD = keys.shard_key(0)

EACH_LAYOUT = pytest.mark.parametrize("layout", ["files", pytest.param("tar", marks=AT_LENGTH)])


@pytest.fixture
def proxy(s3_endpoint: str, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """What everything in the test goes through; with a worker's patience made short."""
    from worker.storage.client import s3_client

    with FaultProxy(s3_endpoint) as running, monkeypatch.context() as environment:
        environment.setenv("DECONVOY_S3_ENDPOINT_URL", running.url)
        environment.setenv("DECONVOY_S3_READ_TIMEOUT_S", str(TIMEOUT_S))
        environment.setenv("DECONVOY_S3_MAX_ATTEMPTS", str(ATTEMPTS))
        yield running
        s3_client().close()


@pytest.fixture
def images(proxy: FaultProxy, s3_bucket: str, tmp_path: Path) -> list[str]:
    photos = open_store(f"s3://{s3_bucket}/photos")
    for path in noise_images(tmp_path, [(70 + number, 60) for number in range(N_IMAGES)]):
        photos.write(path.name, path.read_bytes())
    return [f"{photos.place}/{key}" for key in photos.list("")]


class Weather:
    """The same job twice, in one bucket: in calm weather, and as the proxy has it."""

    def __init__(self, bucket: str, images: Sequence[str], layout: Layout) -> None:
        self.images = images
        self.request = Request(
            specs=SPECS, preprocessing=Preprocessing(size_px=32), format="png", layout=layout
        )
        self.calm = open_store(f"s3://{bucket}/calm")
        run(self.calm, self._job(self.calm))
        self.store = open_store(f"s3://{bucket}/storm")
        self.job = self._job(self.store)

    def run(self, on_image: Callable[[int, int], None] = lambda *_: None) -> ShardResult:
        return run(self.store, self.job, on_image=on_image)

    def _job(self, store: Store) -> Job:
        return make_job(store, self.images, self.request, batch_size=2)

    def check_nothing_differs(self, but: Sequence[str] = ()) -> None:
        """Each image has one row for each spec, and all but those of `but` are as in calm weather."""
        rows = rows_of(self.store)
        assert Counter((row["image"], row["spec"]) for row in rows) == Counter(
            (image, spec) for image in self.images for spec in SPECS
        )
        for row in rows:
            assert (
                row["image"] in but or hashlib.sha256(picture(self.store, row)).hexdigest() == row["sha256"]
            )
        assert lasting(rows, but) == lasting(rows_of(self.calm), but)
        if not but:
            assert pictures_of(self.store) == pictures_of(self.calm)


def picture(store: Store, row: dict[str, Any]) -> bytes:
    if row["offset"] is None:
        return store.read(row["key"])
    return store.read_range(row["key"], row["offset"], row["length"])


def pictures_of(store: Store) -> dict[str, bytes]:
    return {**objects_of(store, "recon/"), **objects_of(store, "inputs/")}


def lasting(rows: list[dict[str, Any]], but: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows without what no two runs share."""
    return [{**row, "seconds": None} for row in rows if row["image"] not in but]


@pytest.mark.parametrize(
    ("fault", "layout"),
    [
        ("500", "files"),
        ("503", "files"),
        ("reset", "files"),
        ("hang", "files"),
        ("cut_request", "files"),
        ("cut_answer", "files"),
        ("lost_answer", "files"),
        ("slow", "files"),
        ("cut_request", "tar"),
        *(pytest.param(fault, "tar", marks=AT_LENGTH) for fault in ("503", "hang", "lost_answer")),
    ],
)
def test_what_fails_once_leaves_no_trace(
    proxy: FaultProxy, s3_bucket: str, images: list[str], fault: Fault, layout: Layout
) -> None:
    weather = Weather(s3_bucket, images, layout)
    rule = proxy.inject(Rule(fault, times=1, seconds=0.2 if fault == "slow" else 1.5 * TIMEOUT_S))

    result = weather.run()

    # Each image's read and writes were struck, the manifest and the record too.
    assert rule.n_struck >= (4 * N_IMAGES if layout == "files" else N_IMAGES) + 2
    assert (result.n_images, result.n_failed, result.committed) == (N_IMAGES, 0, True)
    proxy.heal()
    weather.check_nothing_differs()


@EACH_LAYOUT
def test_all_faults_at_once_leave_no_trace(
    proxy: FaultProxy,
    s3_bucket: str,
    images: list[str],
    layout: Layout,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds: list[Fault] = ["500", "503", "reset", "cut_request", "cut_answer", "lost_answer"]
    # More attempts than faults that one request can meet.
    monkeypatch.setenv("DECONVOY_S3_MAX_ATTEMPTS", str(len(kinds) + 1))
    weather = Weather(s3_bucket, images, layout)
    for seed, fault in enumerate(kinds):
        proxy.inject(Rule(fault, times=1, share=0.4, seed=seed))

    assert weather.run().n_failed == 0

    assert len(proxy.faults) == len(kinds)
    proxy.heal()
    weather.check_nothing_differs()


@pytest.mark.parametrize("fault", ["500", "503", "reset", "hang", "cut_answer"])
def test_an_image_that_cannot_be_read_is_failed_after_all_attempts_and_the_others_are_done(
    proxy: FaultProxy, s3_bucket: str, images: list[str], fault: Fault
) -> None:
    weather = Weather(s3_bucket, images, "files")
    lost = images[1]
    path = lost.removeprefix("s3://")
    asked_before = proxy.requests["GET", path]
    proxy.inject(Rule(fault, method="GET", key=f"{path}$"))

    result = weather.run()

    assert (result.n_images, result.n_failed, result.committed) == (N_IMAGES, 1, True)
    assert proxy.requests["GET", path] - asked_before == ATTEMPTS
    proxy.heal()
    weather.check_nothing_differs(but=[lost])
    failed = [row for row in rows_of(weather.store) if row["status"] != "ok"]
    assert [(row["image"], row["error"], row["spec"]) for row in failed] == [
        (lost, "ImageUnavailable", spec) for spec in SPECS
    ]
    assert lost in failed[0]["message"]
    assert "\n" not in failed[0]["message"]


@pytest.mark.parametrize(
    ("fault", "where", "layout"),
    [
        ("500", "recon/", "files"),
        ("hang", "recon/", "files"),
        ("reset", RECORD, "files"),
        ("503", RECORD, "tar"),
        pytest.param("503", "inputs/", "files", marks=AT_LENGTH),
        pytest.param("cut_request", "recon/", "files", marks=AT_LENGTH),
        pytest.param("hang", RECORD, "files", marks=AT_LENGTH),
        pytest.param("reset", "recon/", "tar", marks=AT_LENGTH),
    ],
)
def test_a_write_that_fails_for_good_ends_the_shard_and_the_next_run_leaves_no_trace_of_it(
    proxy: FaultProxy, s3_bucket: str, images: list[str], fault: Fault, where: str, layout: Layout
) -> None:
    weather = Weather(s3_bucket, images, layout)
    rule = proxy.inject(Rule(fault, method="PUT", key=f"storm/{where}"))

    with pytest.raises(StorageUnavailable) as caught:
        weather.run()

    assert rule.n_struck >= ATTEMPTS
    assert f"s3://{s3_bucket}/storm/{where}" in str(caught.value)
    assert "\n" not in str(caught.value)
    proxy.heal()
    assert not weather.store.exists(RECORD)
    assert weather.run().committed
    weather.check_nothing_differs()


def test_a_manifest_that_cannot_be_read_ends_the_shard(
    proxy: FaultProxy, s3_bucket: str, images: list[str]
) -> None:
    weather = Weather(s3_bucket, images, "files")
    proxy.inject(Rule("503", method="GET", key="storm/manifest/"))
    with pytest.raises(StorageUnavailable, match=r"manifest/000000\.jsonl.*SlowDown.*after 3 attempts"):
        weather.run()


@EACH_LAYOUT
@pytest.mark.parametrize(("how", "away_s"), [("silent", 2.5 * TIMEOUT_S), ("down", 0.25)])
def test_a_server_that_is_away_for_a_while_leaves_no_trace(
    proxy: FaultProxy,
    s3_bucket: str,
    images: list[str],
    layout: Layout,
    how: str,
    away_s: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DECONVOY_S3_MAX_ATTEMPTS", "8")
    weather = Weather(s3_bucket, images, layout)
    begun, over = threading.Event(), threading.Event()

    def be_away() -> None:
        begun.wait()
        with proxy.silent() if how == "silent" else proxy.down():
            over.wait(away_s)

    away = threading.Thread(target=be_away)
    away.start()
    try:
        result = weather.run(on_image=lambda *_: begun.set())
    finally:
        begun.set()
        over.set()
        away.join()

    assert (result.n_failed, result.committed) == (0, True)
    weather.check_nothing_differs()


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("403", StorageDenied, r"InvalidAccessKeyId.*check the credentials \(AWS_ACCESS_KEY_ID"),
        ("404", StorageError, r"there is no such bucket .*create it"),
    ],
    ids=["credentials refused", "bucket gone"],
)
def test_what_ends_access_in_the_middle_ends_the_shard_and_what_was_done_stays(
    proxy: FaultProxy,
    s3_bucket: str,
    images: list[str],
    fault: Fault,
    error: type[StorageError],
    message: str,
) -> None:
    weather = Weather(s3_bucket, images, "files")

    def strike(n_done: int, _n_failed: int) -> None:
        if n_done == 1:
            proxy.inject(Rule(fault))

    with pytest.raises(error, match=message) as caught:
        weather.run(on_image=strike)

    assert "\n" not in str(caught.value)
    proxy.heal()
    assert not weather.store.exists(RECORD)
    done = pictures_of(weather.store)
    assert done
    assert done.items() <= pictures_of(weather.calm).items()
    assert weather.run().committed
    weather.check_nothing_differs()
