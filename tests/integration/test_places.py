"""The same job from and into a folder or a bucket, as files or as tar, gives the same pictures."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cluster import Deconvoy
from worker.contract import keys
from worker.storage import Store, open_store
from worker.storage.client import s3_client

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

OPTIONS = ("--weights", "random:0", "--size", "64", "--spec", "pool2:all", "--spec", "conv3_1:top:3")
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


@pytest.fixture
def places(
    deconvoy: Deconvoy, s3_environment: dict[str, str], s3_bucket: str, photos: Path, tmp_path: Path
) -> tuple[Deconvoy, str, str]:
    """`deconvoy` with S3, and three photographs and a broken one in a folder and in a bucket."""
    (photos / "broken.png").write_bytes(b"no picture")
    for path in photos.iterdir():
        s3_client().put_object(Bucket=s3_bucket, Key=f"photos/{path.name}", Body=path.read_bytes())
    with_s3 = Deconvoy({**deconvoy.environment, **s3_environment}, deconvoy.temporary)
    return with_s3, str(photos), f"s3://{s3_bucket}/photos"


def done(deconvoy: Deconvoy, source: str, out: str, *options: str) -> Done:
    ended = deconvoy("run", source, "--out", out, *OPTIONS, *options)
    assert ended.returncode == 3, ended.stderr
    page = ended.stdout.strip()
    store = open_store(page.removesuffix(f"/{keys.REPORT}"))
    table: pa.Table = pq.ParquetFile(pa.BufferReader(store.read(keys.INDEX))).read()
    rows = table.to_pylist()
    return Done(
        store,
        rows,
        [_bytes(store, row["key"], row["offset"], row["length"]) for row in rows],
        [_bytes(store, row["input_key"], row["input_offset"], row["input_length"]) for row in rows],
    )


def _bytes(store: Store, key: str | None, offset: int | None, length: int | None) -> bytes | None:
    if key is None:
        return None
    if offset is None or length is None:
        return store.read(key)
    return store.read_range(key, offset, length)


def test_where_images_and_job_lie_changes_no_byte(places: tuple[Deconvoy, str, str], tmp_path: Path) -> None:
    deconvoy, folder, prefix = places
    bucket = prefix.rpartition("/")[0]
    local = done(deconvoy, folder, str(tmp_path / "out"))
    mixed = done(deconvoy, folder, f"{bucket}/mixed")
    remote = done(deconvoy, prefix, f"{bucket}/remote")

    assert [row["status"] for row in local.rows] == ["ok"] * 4 + ["failed"] * 2 + ["ok"] * 8
    assert local.pictures == mixed.pictures == remote.pictures
    assert local.inputs == mixed.inputs == remote.inputs
    # The same images into another place: all of the index. Images of other names: all but their names.
    assert local.without("seconds") == mixed.without("seconds")
    assert mixed.without(*NAMES, "seconds") == remote.without(*NAMES, "seconds")
    assert [*local.store.list("recon/")] == [*mixed.store.list("recon/")]


def test_tar_and_files_hold_the_same_bytes(places: tuple[Deconvoy, str, str], tmp_path: Path) -> None:
    deconvoy, folder, prefix = places
    bucket = prefix.rpartition("/")[0]
    files = done(deconvoy, folder, str(tmp_path / "files"))
    tar = done(deconvoy, folder, f"{bucket}/tar", "--layout", "tar")
    local_tar = done(deconvoy, folder, str(tmp_path / "tar"), "--layout", "tar")

    where = ("key", "offset", "length", "input_key", "input_offset", "input_length")
    assert files.pictures == tar.pictures
    assert files.inputs == tar.inputs
    assert files.without(*where, "seconds") == tar.without(*where, "seconds")
    assert tar.without("seconds") == local_tar.without("seconds")
    members = {}
    for key in tar.store.list("recon/"):
        with tarfile.open(fileobj=io.BytesIO(tar.store.read(key))) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                members[member.name] = file.read()
    stored = [*files.store.list("recon/"), *files.store.list("inputs/")]
    assert members == {key: files.store.read(key) for key in stored}
