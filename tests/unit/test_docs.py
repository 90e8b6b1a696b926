"""The documents say what there is: commands, options, settings, columns, targets, links, specs, code."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from producer.cli import cli
from worker import app
from worker.contract import queue
from worker.contract.records import SCHEMA
from worker.contract.settings import Settings
from worker.contract.specs import parse_spec

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
MANUAL = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS if path.name != "CHANGELOG.md")


def commands_of(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Each command by its whole name, those of groups too."""
    for name, command in group.commands.items():
        yield before + name, command
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{before}{name} ")


OPTIONS = sorted(
    {
        (name, option)
        for name, command in commands_of(cli)
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }
)
LAYER = r"(?:conv\d_\d|relu\d_\d|pool\d|\d+)"
SPEC = re.compile(rf"(?<![\w:]){LAYER}:(?:all|max|top:\d+|unit:\d+(?:,\d+)*)(?![\w:])")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def rows(path: str) -> list[list[str]]:
    """The cells of every table line of a document."""
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def test_every_command_is_in_the_readme_and_no_other() -> None:
    documented = set(re.findall(r"^\| `deconvoy (\w+)", README, re.MULTILINE))
    assert documented == set(cli.commands)


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_every_option_is_documented(command: str, option: str) -> None:
    assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", MANUAL), f"deconvoy {command} {option}"


def test_no_option_is_documented_that_does_not_exist() -> None:
    known = {option for _, option in OPTIONS} | {"--help", "--version"}
    text = "\n".join(line for line in README.splitlines() if not line.startswith("![") and "pip " not in line)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known


def test_every_setting_is_in_the_readme_with_its_default_and_no_other() -> None:
    documented = {row[0].strip("`"): row[2].strip("`") for row in rows("README.md") if "DECONVOY_" in row[0]}
    fields = Settings.model_fields.items()
    expected = {
        f"DECONVOY_{name.upper()}": "unset" if field.default in (None, ()) else str(field.default)
        for name, field in fields
    }
    assert documented == expected


def test_every_column_is_documented_with_its_type_in_order() -> None:
    documented = [(row[0].strip("`"), row[1]) for row in rows("docs/index-columns.md")[2:]]
    types = {"double": "float64", "float": "float32", "list<item: double>": "list of float64"}
    types |= {"list<element: double>": "list of float64"}
    expected = [(field.name, types.get(str(field.type), str(field.type))) for field in SCHEMA]
    assert documented == expected


def test_columns_that_are_always_set_are_those_that_cannot_be_null() -> None:
    always = {row[0].strip("`") for row in rows("docs/index-columns.md")[2:] if row[2] == "always"}
    assert always == {field.name for field in SCHEMA if not field.nullable}


def test_every_celery_setting_is_documented() -> None:
    shared = queue.shared_config(10)
    names = {*shared, *shared["broker_transport_options"], *app.TASK_OPTIONS, *app.WORKER_OPTIONS}
    names |= {"task_time_limit", "imports"}
    text = (ROOT / "docs" / "queue.md").read_text(encoding="utf-8")
    assert {name for name in names if f"`{name}`" not in text} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (document.parent / link).exists()] == []


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", MANUAL, re.MULTILINE))
    assert {"demo", "test", "setup", "lint", "format"} <= named <= targets


def test_ci_runs_the_test_command_of_the_readme() -> None:
    commands = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert commands[-2:] == ["make lint", "make test"]
    assert re.search(r"^make test$", README, re.MULTILINE)


def test_every_documented_spec_parses() -> None:
    specs = {match.group() for match in SPEC.finditer(MANUAL)}
    assert {"pool5:max", "4:all", "conv4_3:top:9", "pool3:unit:7,12"} <= specs
    for spec in specs:
        parse_spec(spec)


def test_the_python_of_the_readme_compiles_and_its_imports_exist() -> None:
    blocks = [code for language, code in FENCED.findall(README) if language == "python"]
    assert len(blocks) == 3
    for node in (node for block in blocks for node in ast.walk(ast.parse(block))):
        if isinstance(node, ast.ImportFrom) and node.module in ("producer", "worker.deconv"):
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
