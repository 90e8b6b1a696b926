"""CONTRIBUTING's walks, followed to the letter in a copy of the project: what is added there works."""

from __future__ import annotations

import io
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.length import at_length
from tests.photographs import photographs
from worker.contract import keys

ROOT = Path(__file__).parents[2]
WALKS = ("A VGG configuration", "A picture format", "A storage")
_FILE = r"`(?P<file>[\w./]+)`"
_TABLE = re.compile(rf"\b[Tt]o `(?P<name>\w+)` in {_FILE}")
_BESIDE = re.compile(rf"\bIn {_FILE}, (?P<side>above|below) `(?P<name>[^`]+)`")
_BLOCK = re.compile(
    r"(?P<words>.*?)^ *```(?P<language>python|sh)\n(?P<text>.*?)^ *```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Step:
    """A block of a walk, and the words above it, which say where it belongs."""

    words: str
    language: str
    text: str


def section(title: str) -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return re.split(r"^##", text.partition(f"\n### {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def steps_of(title: str) -> Iterator[Step]:
    for found in _BLOCK.finditer(section(title)):
        lines = found["text"].splitlines()
        assert all(line.startswith("   ") for line in lines if line)
        yield Step(found["words"], found["language"], "\n".join(line[3:] for line in lines) + "\n")


def follow(step: Step, copy: Path) -> None:
    """Put a block of Python where the words say: at the end of a table, or above or below a line."""
    # The nearest words: those of two steps may stand between two blocks.
    *_, found = sorted(
        (*_TABLE.finditer(step.words), *_BESIDE.finditer(step.words)), key=lambda match: match.start()
    )
    file = copy / found["file"]
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    (at,) = (n for n, line in enumerate(lines) if re.match(rf"{re.escape(found['name'])}\b", line))
    text = step.text
    if found.re is _TABLE:
        at = next(n for n, line in enumerate(lines) if n > at and line == "}\n")
        text = "".join(f"    {line}" for line in step.text.splitlines(keepends=True))
    elif found["side"] == "below":
        at += 1
    else:
        text += "\n\n"
    file.write_text("".join([*lines[:at], text, *lines[at:]]), encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with all that the walks add."""
    folder = tmp_path_factory.mktemp("walks") / "project"
    folder.mkdir()
    for name in ("worker", "producer", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "CONTRIBUTING.md", "Makefile"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv").symlink_to(sys.prefix)
    for step in (step for title in WALKS for step in steps_of(title)):
        if step.language == "python":
            follow(step, folder)
        elif step.text.startswith("cp "):
            run(folder, step.text)
    return folder


def run(copy: Path, command: str) -> str:
    """What the command says; it must succeed. It sees the copy's modules and no others of their names."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("DECONVOY_", "PYTEST_"))
    }
    done = subprocess.run(
        ["sh", "-ec", command],
        cwd=copy,
        env={**kept, "PYTHONPATH": str(copy), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("title", WALKS)
def test_a_walk_has_five_steps_at_most(title: str) -> None:
    numbers = re.findall(r"^(\d)\. ", section(title), re.MULTILINE)
    assert numbers == [str(n + 1) for n in range(len(numbers))]
    assert 3 <= len(numbers) <= 5


@pytest.mark.integration
@pytest.mark.parametrize("title", WALKS)
def test_what_a_walk_adds_passes_the_tests_that_it_names(copy: Path, title: str) -> None:
    (command,) = (step.text for step in steps_of(title) if step.language == "sh" and "pytest" in step.text)
    said = run(copy, command)
    assert re.search(r"^[1-9]\d* passed", said, re.MULTILINE)
    assert re.search(r"^seconds of tests: \w+ \d+$", said, re.MULTILINE)


@at_length
@pytest.mark.integration
def test_a_job_can_use_all_that_the_walks_add(copy: Path, tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    options = "--model vgg10 --weights random:0 --size 32 --format tiff --spec pool5:max --spec pool1:all"
    run(copy, f".venv/bin/python -P -m producer.cli run {photographs()[0]} --out sqlite://{file} {options}")

    with closing(sqlite3.connect(file)) as database:
        objects = database.execute("SELECT key, data FROM objects").fetchall()
    stored = {key.partition("/")[2]: data for key, data in objects}
    rows = pq.read_table(io.BytesIO(stored[keys.INDEX])).to_pylist()
    assert [(row["spec"], row["status"]) for row in rows] == [("pool5:max", "ok"), ("pool1:all", "ok")]
    for row in rows:
        assert row["key"].endswith(".tiff")
        with Image.open(io.BytesIO(stored[row["key"]])) as picture:
            assert picture.format == "TIFF"
            assert picture.size == (row["right"] - row["left"], row["bottom"] - row["top"])
    page = stored[keys.REPORT].decode()
    assert "tiff files, which browsers do not show" in page
    assert "image/tiff" not in page


@pytest.mark.integration
def test_what_the_walks_add_is_clean(copy: Path) -> None:
    run(copy, ".venv/bin/ruff check worker tests/unit && .venv/bin/ruff format --check worker tests/unit")
