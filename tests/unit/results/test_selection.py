"""Which rows are meant, which ranges are read together, and that tables are cut between images."""

from __future__ import annotations

import fnmatch
import hashlib
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import producer.fetch
from producer.fetch import _by_image
from producer.pictures import Picture, read_span, spans
from producer.selection import Selection, selected_rows
from tests.memory_store import MemoryStore
from tests.unit.standin import make_job
from worker.contract import keys, records
from worker.contract.jobs import Request
from worker.contract.records import Row
from worker.storage import open_store

_BYTES = hashlib.shake_128(b"").digest(8 * 2**20)
NAMES = st.text("ab[]!*?-./\n", min_size=1, max_size=8)
SPECS = ("pool1:max", "pool2:all")


def row(image: str, spec: str = SPECS[0]) -> Row:
    return Row(
        image=image,
        image_key=keys.image_key(image),
        status="ok",
        spec=spec,
        layer="pool1",
        selection="max",
        shard=0,
    )


@given(st.lists(NAMES, max_size=3), NAMES)
def test_a_glob_matches_the_whole_image_or_its_name_as_fnmatch_does(globs: list[str], image: str) -> None:
    name = image.split("/")[-1]
    matched = bool(fnmatch.filter([image, name], "*") if not globs else [])
    matched = matched or any(fnmatch.filter([image, name], glob) for glob in globs)

    assert Selection(SPECS, tuple(globs)).matches(image) == matched


@pytest.mark.parametrize(
    ("glob", "image", "matched"),
    [
        ("cat.jpg", "/photos/cat.jpg", True),
        ("cat", "/photos/cat.jpg", False),
        ("photos/*", "/photos/cat.jpg", False),
        ("*/photos/*", "/photos/2026/cat.jpg", True),
        ("/photos/*", "/photos/2026/cat.jpg", True),
        ("CAT.jpg", "/photos/cat.jpg", False),
        ("c?t.*", "s3://bucket/photos/cat.jpg", True),
        ("s3://bucket/*", "s3://bucket/photos/cat.jpg", True),
        ("[a-c]at.jpg", "/photos/cat.jpg", True),
        ("[[]1].jpg", "/photos/[1].jpg", True),
        ("*.jpg", "/photos/new\nline.jpg", True),
    ],
)
def test_globs_by_example(glob: str, image: str, matched: bool) -> None:
    assert Selection(SPECS, (glob,)).matches(image) is matched


@given(
    st.lists(st.tuples(NAMES, st.sampled_from(SPECS)), min_size=1, max_size=20),
    st.lists(NAMES, max_size=2),
    st.sets(st.sampled_from(SPECS), min_size=1),
)
def test_a_selection_keeps_the_rows_that_are_meant_in_their_order(
    given_rows: list[tuple[str, str]], globs: list[str], specs: set[str]
) -> None:
    selection = Selection(tuple(specs), tuple(globs))
    (batch,) = records.table_of(row(*one) for one in given_rows).to_batches()

    kept = selection.of(batch).to_pylist()

    assert [(one["image"], one["spec"]) for one in kept] == [
        (image, spec) for image, spec in given_rows if spec in specs and selection.matches(image)
    ]


def test_an_index_comes_in_batches_of_a_few_thousand_rows(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    job = make_job(store, ["/a.png"], Request(specs=SPECS))
    table = pa.concat_tables([records.table_of([row(f"/{n:02}.png") for n in range(50)])] * 400)
    store.write(keys.INDEX, records.to_parquet(table))

    sizes = [batch.num_rows for batch in selected_rows(store, job, Selection(SPECS), lambda _: None)]

    assert sum(sizes) == 20_000
    assert max(sizes) < 5000


@given(st.lists(st.integers(1, 7), min_size=1, max_size=12), st.integers(1, 9), st.integers(1, 9))
def test_tables_are_cut_between_images_and_nothing_is_lost(
    rows_of_images: list[int], batch_rows: int, table_rows: int
) -> None:
    images = [f"/{n}.png" for n, n_rows in enumerate(rows_of_images) for _ in range(n_rows)]
    batches = records.table_of(map(row, images)).to_batches(max_chunksize=batch_rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(producer.fetch, "_TABLE_ROWS", table_rows)
        tables = [table["image"].to_pylist() for table in _by_image(batches)]

    assert [image for table in tables for image in table] == images
    assert all(tables)
    assert sum(len(set(table)) for table in tables) == len(rows_of_images)
    longest = max(rows_of_images)
    assert max(map(len, tables)) < table_rows + batch_rows + longest


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 200_000), st.integers(1, 60_000)), min_size=1, max_size=30),
    st.permutations(range(30)),
)
def test_spans_give_each_picture_its_bytes_and_leave_large_gaps_out(
    gaps_and_lengths: list[tuple[int, int]], order: list[int]
) -> None:
    pictures, end = [], 0
    for n, (gap, length) in enumerate(gaps_and_lengths):
        pictures.append(Picture("/a.png", str(n), None, "recon/a.tar", end + gap, length))
        end += gap + length
    data = _BYTES[:end]
    store = MemoryStore()
    store.write("recon/a.tar", data)

    groups = spans(pictures[n] for n in order if n < len(pictures))

    assert [picture for group in groups for picture in group] == pictures
    for group in groups:
        ends = [picture.offset + (picture.length or 0) for picture in group]
        expected = [data[picture.offset : end] for picture, end in zip(group, ends, strict=True)]
        assert read_span(store, group) == expected
        assert ends[-1] - group[0].offset <= 4 * 2**20
        assert all(after.offset - end <= 64 * 2**10 for end, after in zip(ends, group[1:], strict=False))
    assert {len(group) for group in groups} != {1} or all(gap > 64 * 2**10 for gap, _ in gaps_and_lengths[1:])


def test_whole_objects_are_read_one_by_one() -> None:
    pictures = [Picture("/a.png", name, None, name, 0, None) for name in ("a", "a", "b")]

    assert [len(group) for group in spans(pictures)] == [1, 1, 1]
