"""The documents as tests read them: sections, tables, links, and blocks of code with their places."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PAGES = [ROOT / "README.md", *(path for path in DOCUMENTS if path.parent == ROOT / "docs")]
"""README and docs/: what users read."""

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, the word after its fence, and what is in it."""

    document: str
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


@cache
def text_of(path: str) -> str:
    """A document, by its path from the root."""
    return (ROOT / path).read_text(encoding="utf-8")


def name_of(path: Path) -> str:
    """A document's path from the root."""
    return path.relative_to(ROOT).as_posix()


def prose_of(path: str) -> str:
    """A document without its fenced blocks."""
    return _FENCED.sub("", text_of(path))


def blocks(*languages: str) -> Iterator[Block]:
    """The blocks of README and docs/ in these languages; without any, all."""
    for path in map(name_of, PAGES):
        text = text_of(path)
        for found in _FENCED.finditer(text):
            if not languages or found[1] in languages:
                yield Block(path, text.count("\n", 0, found.start()) + 1, found[1], found[2])


def table(path: str, heading: str) -> list[list[str]]:
    """The cells of the tables under a heading, without the heads of the tables."""
    _, found, rest = text_of(path).partition(f"\n{heading}\n")
    assert found, f"{path} has no {heading!r}"
    section = re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]
    rows = [cells(line) for line in section.splitlines() if line.startswith("|")]
    rules = [number for number, row in enumerate(rows) if set("".join(row)) <= set("-: ")]
    return [row for number, row in enumerate(rows) if number not in {*rules, *(rule - 1 for rule in rules)}]


def cells(line: str) -> list[str]:
    """The cells of a table's line; a bar after a backslash is none of its own."""
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip("|"))]


def anchors(path: str) -> set[str]:
    """What GitHub calls a document's headings: small letters, no punctuation, dashes for spaces."""
    found: dict[str, int] = {}
    names = set()
    for heading in _HEADING.findall(prose_of(path)):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        n = found[slug] = found.get(slug, -1) + 1
        names.add(f"{slug}-{n}" if n else slug)
    return names


def links(path: str) -> list[str]:
    """Where a document's links and pictures lead, as written."""
    prose = re.sub(r"`[^`\n]*`", "", prose_of(path))
    return re.findall(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)", prose)
