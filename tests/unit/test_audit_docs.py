"""docs/audits.md says what there is: the columns of all tables, and every kind of finding."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from worker.contract import keys
from worker.contract.audit_tables import ATLAS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, UNITS_SCHEMA
from worker.contract.audits import SEVERITIES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "audits.md").read_text(encoding="utf-8")
TABLES = {
    keys.UNITS: UNITS_SCHEMA,
    keys.IMAGES: IMAGES_SCHEMA,
    keys.ATLAS: ATLAS_SCHEMA,
    keys.FINDINGS: FINDINGS_SCHEMA,
}


MAKERS = {"Finding", "named", "counted", "_group_findings"}
NO_KINDS = {*SEVERITIES, "audit"}


def rows_under(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    _, found, text = TEXT.partition(f"\n{heading}\n")
    assert found, heading
    section = re.split(r"^#", text, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def type_of(field: pa.Field) -> str:
    names = {"double": "float64", "float": "float32"}
    if pa.types.is_list(field.type):
        inner = str(field.type.value_type)
        return f"list of {names.get(inner, inner)}"
    return names.get(str(field.type), str(field.type))


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_documented_with_its_type_in_order(table: str) -> None:
    documented = [(row[0].strip("`"), row[1]) for row in rows_under(f"### `{table}`")]
    assert documented == [(field.name, type_of(field)) for field in TABLES[table]]


@pytest.mark.parametrize("table", TABLES)
def test_columns_that_are_always_set_are_those_that_cannot_be_null(table: str) -> None:
    always = {row[0].strip("`") for row in rows_under(f"### `{table}`") if row[2] == "always"}
    assert always == {field.name for field in TABLES[table] if not field.nullable}


def test_every_kind_of_finding_is_documented_and_no_other() -> None:
    documented = {kind for row in rows_under("## Gates") for kind in re.findall(r"`([a-z-]+)`", row[0])}
    assert documented == {*kinds_that_are_made()}
    severities = {word for row in rows_under("## Gates") for word in row[1].split(", ")}
    assert severities == set(SEVERITIES)


def kinds_that_are_made() -> Iterator[str]:
    """What stands as a word where findings are made, and is neither a severity nor a column or subject."""
    for path in (ROOT / "worker" / "audit").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in MAKERS:
                words = (word.value for word in node.args if isinstance(word, ast.Constant))
                yield from {
                    str(word) for word in words if re.fullmatch(r"[a-z]+(-[a-z]+)*", str(word))
                } - NO_KINDS
