"""The same job from and into a folder or a bucket, as files or as tar, gives the same pictures."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from producer.jobs import submit
from tests.cluster import Deconvoy
from worker.contract.jobs import Layout
from worker.contract.settings import Settings
from worker.storage import Store
from worker.storage.client import s3_client

pytestmark = pytest.mark.integration

SPECS = ("pool2:all", "conv3_1:top:3")
# How an image is called decides about these, and the machine's pace about the last one.
NAMES = ("image", "image_key", "key", "input_key", "message")


@dataclass(frozen=True)
class Done:
    """A finished job: its index, and every picture's bytes in the order of the index."""

    store: Store
    rows: list[dict[str, Any]]
    pictures: list[bytes | None]
    inputs: list[bytes | None]

    def without(self, *columns: str) -> list[dict[str, Any]]:
        return [{name: value for name, value in row.items() if name not in columns} for row in self.rows]


def _bytes(store: Store, key: str | None, offset: int | None, length: int | None) -> bytes | None:
    if key is None:
        return None
    if offset is None or length is None:
        return store.read(key)
    return store.read_range(key, offset, length)


def test_neither_place_nor_layout_changes_a_byte(
    deconvoy: Deconvoy,
    redis_url: str,
    s3_environment: dict[str, str],
    s3_bucket: str,
    photos: Path,
    tmp_path: Path,
) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    for path in photos.iterdir():
        s3_client().put_object(Bucket=s3_bucket, Key=f"photos/{path.name}", Body=path.read_bytes())
    settings = Settings(redis_url=redis_url)

    def done(source: str, out: str, layout: Layout = "files") -> Done:
        job = submit(
            source, out=out, settings=settings, weights="random:0", size_px=64, specs=SPECS, layout=layout
        )
        assert job.wait().n_failed == 1
        rows = job.index().to_pylist()
        return Done(
            job.store,
            rows,
            [_bytes(job.store, row["key"], row["offset"], row["length"]) for row in rows],
            [_bytes(job.store, row["input_key"], row["input_offset"], row["input_length"]) for row in rows],
        )

    environment = {"DECONVOY_REDIS_URL": redis_url, **s3_environment}
    with deconvoy.logging(tmp_path / "worker.log", "worker", "--gpus", "none", **environment):
        check_places(done, str(photos), str(tmp_path / "out"), f"s3://{s3_bucket}")


def check_places(done: Callable[..., Done], folder: str, out: str, bucket: str) -> None:
    local = done(folder, out)
    mixed = done(folder, f"{bucket}/mixed")
    remote = done(f"{bucket}/photos", f"{bucket}/remote")
    tar = done(folder, f"{bucket}/tar", "tar")
    local_tar = done(folder, f"{out}/tar", "tar")

    assert [row["status"] for row in local.rows] == ["ok"] * 4 + ["failed"] * 2 + ["ok"] * 8
    assert local.pictures == mixed.pictures == remote.pictures == tar.pictures
    assert local.inputs == mixed.inputs == remote.inputs == tar.inputs
    # The same images into another place: all of the index. Images of other names: all but their names.
    assert local.without("seconds") == mixed.without("seconds")
    assert mixed.without(*NAMES, "seconds") == remote.without(*NAMES, "seconds")
    assert [*local.store.list("recon/")] == [*mixed.store.list("recon/")]

    where = ("key", "offset", "length", "input_key", "input_offset", "input_length")
    assert local.without(*where, "seconds") == tar.without(*where, "seconds")
    assert tar.without("seconds") == local_tar.without("seconds")
    members = {}
    for key in tar.store.list("recon/"):
        with tarfile.open(fileobj=io.BytesIO(tar.store.read(key))) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                members[member.name] = file.read()
    stored = [*local.store.list("recon/"), *local.store.list("inputs/")]
    assert members == {key: local.store.read(key) for key in stored}
