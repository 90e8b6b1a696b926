"""The comparison with others: each cell has a source that stays as it is; ratios are those measured."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from tests.bench import audit, crp

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "comparison.md").read_text(encoding="utf-8")
LABEL = re.compile(r"\]\[([\w-]+)\]")
DEFINED = re.findall(r"^\[([\w-]+)\]: (\S+)$", TEXT, re.MULTILINE)
SOURCES = dict(DEFINED)


def tables(text: str) -> list[list[list[str]]]:
    """The cells of each table's rows: first the heading, then the body."""
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    cells = [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        for block in blocks
    ]
    return [[table[0], *table[2:]] for table in cells]


def anchors(document: Path) -> set[str]:
    """What GitHub calls the document's headings in links."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_cell_has_a_source() -> None:
    cells = [(row[0], cell) for table in tables(TEXT) for row in table[1:] for cell in row[1:]]
    assert len(cells) > 100
    assert [(row, cell) for row, cell in cells if not LABEL.search(cell)] == []


def test_every_row_has_a_cell_for_each_column() -> None:
    assert [row for table in tables(TEXT) for row in table if len(row) != len(table[0])] == []


def test_every_source_is_named_once_and_used() -> None:
    assert len(DEFINED) == len(SOURCES)
    assert set(LABEL.findall(TEXT)) == set(SOURCES)


def test_code_of_others_is_cited_at_one_commit_of_each_repository() -> None:
    commits = defaultdict(set)
    outside = [url for url in SOURCES.values() if "://" in url]
    for url in outside:
        if url.startswith("https://pypi.org/"):
            assert re.fullmatch(r"https://pypi\.org/project/[\w-]+/\d+\.\d+\.\d+/", url), url
            continue
        match = re.match(r"https://github\.com/([\w.-]+/[\w.-]+)/(?:blob|tree)/([0-9a-f]{40})(?:/|$)", url)
        assert match, url
        commits[match[1]].add(match[2])
    assert len(commits) >= 10
    assert {repository: found for repository, found in commits.items() if len(found) > 1} == {}


def test_the_commits_in_the_table_of_projects_are_those_that_are_cited() -> None:
    projects = tables(TEXT)[-1]
    named = dict(re.findall(r"\[`([0-9a-f]{7})`\]\[([\w-]+)\]", str(projects)))
    assert len(named) == len(projects) - 1
    assert [short for short, label in named.items() if f"/tree/{short}" not in SOURCES[label]] == []


def test_sources_in_these_docs_exist() -> None:
    inside = [url.partition("#") for url in SOURCES.values() if "://" not in url]
    assert len(inside) > 5
    assert [path for path, _, _ in inside if not (DOCS / path).is_file()] == []
    assert [(path, name) for path, _, name in inside if name and name not in anchors(DOCS / path)] == []


def test_ratios_to_captum_are_those_of_the_benchmarks() -> None:
    benchmarks = tables((DOCS / "benchmarks.md").read_text(encoding="utf-8"))
    singles = {row[0]: number(row[3]) for row in benchmarks[0][1:]}
    atlas = {
        row[0].split(",")[0].removeprefix("atlas of "): number(row[2])
        for table in benchmarks
        for row in table
        if row[0].startswith("atlas of ")
    }
    (measured,) = (table for table in tables(TEXT) if table[0][0] == "from")
    assert {row[0]: number(row[1]) for row in measured[1:]} == singles
    assert {row[0]: number(row[2]) for row in measured[1:] if "not measured" not in row[2]} == atlas
    (captum,) = (row for row in tables(TEXT)[0] if row[0] == "Captum")
    assert [float(text) for text in re.findall(r"[\d.]+", captum[-1])] == [
        min(atlas.values()),
        max(atlas.values()),
    ]


def number(cell: str) -> float:
    """The first of a cell: the median, before its spread."""
    match = re.match(r"\[?([\d.]+)", cell)
    assert match, cell
    return float(match[1])


def test_the_short_table_says_of_zennit_crp_what_the_long_one_does() -> None:
    (measured,) = (table for table in tables(TEXT) if table[0][0] == "from")
    medians = [number(cell) for row in measured[1:] for cell in row[3:] if "not measured" not in cell]
    assert len(medians) == 2 * len(audit.ATLAS_POOLS)
    (short,) = (row for row in tables(TEXT)[0] if row[0] == "zennit-crp")
    assert [float(text) for text in re.findall(r"[\d.]+", short[-1])] == [min(medians), max(medians)]


def test_it_says_once_when_it_was_read() -> None:
    (read_on,) = re.findall(r"Read on (\d{4}-\d{2}-\d{2})", TEXT)
    assert TEXT.count(read_on) == 1
    assert all(newest <= read_on for newest in re.findall(r"\d{4}-\d{2}-\d{2}", TEXT))


def test_the_short_table_is_short() -> None:
    short = tables(TEXT)[0]
    assert TEXT.index("## In short") < TEXT.index(" | ".join(short[0][1:]))
    assert len(short) - 1 <= 8
    assert len(short[0]) <= 6


def test_the_page_says_how_much_was_measured() -> None:
    assert crp.N_IMAGES == 3
    assert re.search(rf"\b{audit.N_UNITS}\s+units\s+of\s+three\s+photographs", TEXT)


def test_the_comparison_with_zennit_crp_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "crp", None)
    with pytest.raises(SystemExit, match=r"not installed: pip install --no-deps zennit-crp=="):
        crp.Crp(torch.nn.Sequential(), torch.zeros(1, 3, 32, 32))
