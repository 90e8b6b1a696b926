"""Whatever stands in files: lists of images, records, weights, pictures, and keys in a store."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from producer.sources import find_images
from tests.fuzz.inputs import TEXTS, VALUES, changed, damaged, fuzzing, lines, only_ours, texts_like
from tests.memory_store import MemoryStore
from tests.messages import pickled
from tests.unit.standin import make_job
from worker.contract import keys, records
from worker.contract.jobs import Request
from worker.deconv.weights import load_weights
from worker.pipeline.decode import decode_image
from worker.storage import open_store
from worker.storage.folder import FolderStore
from worker.storage.standing import retried_shards, still_to_do

# In short with `make test`, at length with `make chaos`.
pytestmark = pytest.mark.chaos

SMALL = "vgg11"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


# Lists of images


def images_of(path: Path, data: bytes) -> list[str] | None:
    path.write_bytes(data)
    return only_ours(lambda: list(find_images([str(path)])))


@fuzzing
@given(lines(b"a.jpg", b"s3://b/c.png", "ä\u2028b".encode(), b"\xff\xfe", b"http://x/y", b"../../x"))
def test_lists_as_text(folder: Path, data: bytes) -> None:
    check_names(images_of(folder / "list.txt", data))


@fuzzing
@given(st.one_of(lines(b"image,label", b'"a.jpg",1', b'"', b"image"), lines(b"a").map(b"image\n".__add__)))
def test_lists_as_csv(folder: Path, data: bytes) -> None:
    check_names(images_of(folder / "list.csv", data))


@fuzzing
@given(lines(b'{"image": "a.jpg"}', b'{"image": 1}', b'{"image": "\\ud800"}', b"[" * 3000, b"1" * 5000))
def test_lists_as_jsonl(folder: Path, data: bytes) -> None:
    check_names(images_of(folder / "list.jsonl", data))


def parquet(column: pa.Array) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": column}), buffer)
    return buffer.getvalue()


LISTS = [
    parquet(pa.array(["a.jpg", "b.jpg", None])),
    parquet(pa.array([1, 2])),
    parquet(pa.array([b"a.jpg", b"\xff"])),
    parquet(pa.array([["a"]])),
    parquet(pa.array(["a.jpg"]).dictionary_encode()),
]


@fuzzing
@given(damaged(*LISTS))
def test_lists_as_parquet(folder: Path, data: bytes) -> None:
    check_names(images_of(folder / "list.parquet", data))


def check_names(images: list[str] | None) -> None:
    for image in images or []:
        assert image.startswith(("/", "s3://")), image


@fuzzing
@given(st.lists(TEXTS, max_size=4), st.lists(st.sampled_from(["/data", "s3://b"]), max_size=1))
def test_names_on_standard_input(names: list[str], roots: list[str]) -> None:
    only_ours(lambda: list(find_images(["-"], roots, stdin=names)))


# Records


def record() -> bytes:
    row = records.Row(
        image="/a.jpg", image_key="a", status="ok", spec="pool1:max", layer="pool1", selection="max", shard=0
    )
    return records.to_parquet(records.table_of([row] * 3), records.work_metadata({"read": 1.0}, {"n": 1}))


LATIN_NAME = parquet(pa.array(["a"])).replace(b"image", b"im\xe5ge")


@fuzzing
@example(LATIN_NAME)
@given(damaged(record(), *LISTS))
def test_records(data: bytes) -> None:
    table = only_ours(records.from_parquet, data, "shards/000000.parquet")
    if table is not None:
        only_ours(records.summary_of, table.schema.metadata)


@fuzzing
@given(damaged(b'{"read": 1.5}', b"[1]", b'{"a": NaN}'), VALUES)
def test_metadata_of_records(data: bytes, value: object) -> None:
    for stages in (data, repr(value).encode("utf-8", "replace")):
        only_ours(records.summary_of, {records.STAGES_METADATA: stages, records.RESOURCES_METADATA: b"{}"})


# Weights


def torch_file(value: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


KERNELS = {"features.0.weight": torch.zeros(64, 3, 3, 3), "features.0.bias": torch.zeros(64)}
TORCH_FILES = [
    torch_file(KERNELS),
    torch_file(KERNELS, _use_new_zipfile_serialization=False),
    torch_file({"features.0.weight": torch.zeros(1).expand(10**9, 10**3)}),
    torch_file({1: torch.zeros(1)}),
    torch_file([torch.zeros(1)]),
    torch_file({"features.0.running_mean": torch.zeros(1, dtype=torch.complex64)}),
]


def load_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    only_ours(load_weights, str(path), SMALL)


@fuzzing
@given(damaged(*TORCH_FILES))
def test_weights_as_torch_saves_them(folder: Path, data: bytes) -> None:
    load_bytes(folder / "weights.pth", data)


@fuzzing
@given(damaged(pickled(Path("/nowhere")), pickle.dumps(KERNELS), pickle.dumps({"a": os.system}, protocol=0)))
def test_pickles_as_weights(folder: Path, data: bytes) -> None:
    load_bytes(folder / "weights.pt", data)


HEAD = b'{"a":{"dtype":"F32","shape":[99999999999,99999999999],"data_offsets":[0,4]}}'
SAFE_FILES = [
    save(KERNELS),
    save({"a": torch.zeros(2, dtype=torch.int8)}),
    struct.pack("<Q", len(HEAD)) + HEAD,
]


@fuzzing
@given(damaged(*SAFE_FILES))
def test_weights_as_safetensors(folder: Path, data: bytes) -> None:
    load_bytes(folder / "weights.safetensors", data)


def h5_file() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["block1/layers/conv2d/vars/0"] = np.zeros((3, 3, 3, 64), np.float32)
    return buffer.getvalue()


@fuzzing
@given(damaged(h5_file()))
def test_weights_in_the_cache(folder: Path, data: bytes) -> None:
    (folder / "hed_bsds500.weights.h5").write_bytes(data)
    assert only_ours(load_weights, "hed", cache_dir=folder) is None


@fuzzing
@example("~\0")
@example("~\ud800")
@given(
    texts_like(["random:", "0", "imagenet_", "hed.", "/", ".pth", ".safetensors", "~", "/dev/zero", "/proc/"])
)
def test_names_of_weights(name: str) -> None:
    if name not in ("hed", "imagenet"):
        only_ours(load_weights, name, SMALL)


# Pictures


def picture(suffix: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (17, 9), 77).save(buffer, suffix, **options)
    return buffer.getvalue()


PICTURES = [
    *(picture(suffix) for suffix in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "ICO")),
    picture("JPEG", progressive=True),
    picture("PNG", "I;16"),
    picture("PNG", "P", transparency=0),
    picture("TIFF", compression="tiff_lzw"),
    picture("TIFF", "F"),
    picture("WEBP", lossless=True),
]


@fuzzing
@given(damaged(*PICTURES))
def test_pictures(data: bytes) -> None:
    photograph = only_ours(decode_image, data, 1_000_000)
    if photograph is not None:
        assert photograph.rgb.mode == "RGB"


# Stores


@fuzzing
@given(texts_like(["/", "..", ".", "~", "s3://", "file://", "bucket", "\0", "\n", " "]))
def test_names_of_places(name: str) -> None:
    store = only_ours(open_store, name)
    if store is not None:
        assert store.place.startswith(("/", "s3://"))
        assert ".." not in store.place.split("/")


@fuzzing
@given(
    texts_like(["/", "..", ".", "a", "\\", "\0", "%2e%2e", "link"]),
    st.sampled_from(["read", "write", "list", "link", "delete"]),
)
def test_keys_never_lead_out_of_a_store(folder: Path, key: str, what: str) -> None:
    inside, outside = folder / "store/inside", folder / "store/outside"
    for path in (inside, outside):
        path.mkdir(parents=True, exist_ok=True)
    (outside / "secret").write_text("secret")
    store = FolderStore(inside)
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: store.read(key),
        "write": lambda: store.write(key, b"x"),
        "list": lambda: list(store.list(key)),
        "link": lambda: store.link(key, 60),
        "delete": lambda: store.delete(key),
    }
    only_ours(calls[what])
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert sorted(path.name for path in (folder / "store").iterdir()) == ["inside", "outside"]


@fuzzing
@given(
    st.lists(
        texts_like(["retries/", "shards/", "001", "/", "000000", ".parquet", ".json", "-1", "²"]), max_size=5
    )
)
def test_what_stands_in_a_jobs_place(names: list[str]) -> None:
    store = MemoryStore()
    job = make_job(store, ["/a.jpg", "/b.jpg"], Request(), shard_size=1)
    for name in names:
        only_ours(store.write, name, b"{}")
    only_ours(still_to_do, store, job)
    only_ours(retried_shards, store)
    assert store.exists(keys.manifest_key(0))


@fuzzing
@given(changed({"image": "/a.jpg", "status": "ok"}))
def test_rows(row: object) -> None:
    try:
        data = parquet(pa.array([str(row)], pa.string()))
    except UnicodeEncodeError:
        return
    only_ours(records.from_parquet, data, "index.parquet")
