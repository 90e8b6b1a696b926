"""The corpus of odd files through the real command: every image once a spec, and nothing else happens."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.cluster import Deconvoy
from tests.corpus import make_corpus
from worker.contract.jobs import Preprocessing

pytestmark = pytest.mark.integration

SPECS = ("pool1:max", "pool2:all")
SIZE_PX = 32


def test_a_job_of_odd_files_ends_with_a_row_for_each_and_each_spec(
    deconvoy: Deconvoy, tmp_path: Path
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    corpus = make_corpus(folder)
    manifest = tmp_path / "odd.jsonl"
    images = [str(folder / odd.name) for odd in corpus]
    manifest.write_text("".join(json.dumps({"image": image}) + "\n" for image in images))
    network = ("--weights", "random:0", "--model", "vgg11")
    options = (*network, "--size", str(SIZE_PX), "--shard-size", "50")

    ended = deconvoy(
        "run",
        str(manifest),
        "--out",
        str(tmp_path / "out"),
        *options,
        "--spec",
        SPECS[0],
        "--spec",
        SPECS[1],
        "--json",
    )

    assert ended.returncode == 3, ended.stderr
    assert "Traceback" not in ended.stderr
    result = json.loads(ended.stdout)
    errors = [odd.error_with(Preprocessing(size_px=SIZE_PX)) for odd in corpus]
    n_failed = len(errors) - errors.count(None)
    assert (result["state"], result["n_done"], result["n_failed"]) == ("finished", len(corpus), n_failed)
    said = [line for line in ended.stderr.splitlines() if line.startswith("failed: ")]
    assert len(said) == n_failed
    place = Path(result["place"])
    rows = pq.read_table(place / "index.parquet").to_pylist()
    assert [(row["image"], row["spec"], row["error"]) for row in rows] == [
        (image, spec, error) for image, error in zip(images, errors, strict=True) for spec in SPECS
    ]
    assert {row["status"] for row in rows if row["error"] is None} == {"ok"}
    assert {row["status"] for row in rows if row["error"] is not None} == {"failed"}
    assert all(row["message"] for row in rows if row["status"] == "failed")
    notes = dict(zip(images, (odd.note for odd in corpus), strict=True))
    for row in rows:
        if row["status"] == "ok":
            assert row["message"] == notes[row["image"]]
            with Image.open(place / row["key"]) as picture:
                assert picture.size == (row["right"] - row["left"], row["bottom"] - row["top"])
    assert Path(result["report"]).is_file()
