"""Links of the documents lead somewhere: to files, to headings, to tests; and all pages are in the index."""

from __future__ import annotations

import ast
import re
from urllib.parse import urlsplit

import pytest

from tests.documents import DOCUMENTS, ROOT, anchors, links, name_of, table, text_of

NAMES = [name_of(path) for path in DOCUMENTS]
TEST_LINK = re.compile(r"\[([\w ]+)\]\(\.\./(tests/[\w/]+\.py)\)")
"""A test by its name, with spaces so that a line may end in it."""


def inner(document: str) -> list[tuple[str, str]]:
    """Links to files of ours: the path from the root, and the heading."""
    found = []
    for link in links(document):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = (ROOT / document).parent / path if path else ROOT / document
            found.append((target.resolve().relative_to(ROOT).as_posix(), anchor))
    return found


@pytest.mark.parametrize("document", NAMES)
def test_links_and_pictures_lead_to_files_that_are_there(document: str) -> None:
    assert [path for path, _ in inner(document) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", NAMES)
def test_links_with_a_fragment_lead_to_a_heading(document: str) -> None:
    wanted = [(path, anchor) for path, anchor in inner(document) if anchor]
    assert [f"{path}#{anchor}" for path, anchor in wanted if anchor not in anchors(path)] == []


@pytest.mark.parametrize("document", NAMES)
def test_links_to_elsewhere_are_whole_and_encrypted(document: str) -> None:
    parts = [urlsplit(link) for link in links(document) if "://" in link]
    assert [part.geturl() for part in parts if part.scheme != "https" or "." not in part.netloc] == []


def test_github_names_headings_so() -> None:
    assert "what-a-picture-does-not-prove" in anchors("docs/mathematics.md")
    assert "unitsparquet" in anchors("docs/audits.md")
    assert "single-activations-32-units-an-image" in anchors("docs/benchmarks.md")


def test_the_index_of_the_documents_names_every_page() -> None:
    named = {path for path, _ in inner("docs/README.md")}
    assert {name for name in NAMES if name.startswith("docs/")} - {"docs/README.md"} <= named


def test_every_test_that_the_faults_name_is_there_and_every_fault_names_one() -> None:
    headings = re.findall(r"^## .+$", text_of("docs/faults.md"), re.MULTILINE)
    rows = [row for heading in headings for row in table("docs/faults.md", heading)]
    assert len(rows) > 30
    for row in rows:
        assert len(row) == 5, row
        found = TEST_LINK.fullmatch(row[4])
        assert found, row
        tree = ast.parse((ROOT / found[2]).read_text(encoding="utf-8"))
        name = f"test_{found[1].replace(' ', '_')}"
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, row
