"""The shape of the code: short modules, no circles, few parameters, and a reason for what is silenced."""

from __future__ import annotations

import tomllib

import pytest

from tests.code_shape import ROOT, cycle_in, fields_of, imports_of, module_of, repeated, sources, unexplained

ALL = sources("worker", "producer", "tests", "docs", "docker")
MAX_LINES = 400
MAX_PARAMETERS = 6
CONFIGS = (
    "AuditOptions",
    "AuditPlanOptions",
    "Budget",
    "Job",
    "Limits",
    "Plan",
    "PlanOptions",
    "Preprocessing",
    "Request",
    "Restarts",
    "Settings",
)
"""What somebody chooses, as one object: it is handed on whole, and not field by field."""

THE_ENGINE = {("worker/deconv/network.py", "__init__"), ("worker/deconv/network.py", "load")}
"""Its options are the Python interface: whoever loads a network has no job, and so no request to hand on."""


def test_there_is_something_to_look_at() -> None:
    assert {"worker/deconv/network.py", "producer/jobs.py", "docker/healthcheck.py"} <= set(ALL)
    assert {"tests/bench/parts.py", "docs/figures/drawing.py"} <= set(ALL)


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    assert {path: n for path, text in ALL.items() if (n := text.count("\n")) > MAX_LINES} == {}


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {
        module_of(path): text for path, text in ALL.items() if not path.startswith(("docs/", "docker/"))
    }
    known = frozenset(modules)
    graph = {name: imports_of(text, known) for name, text in modules.items()}
    assert sum(map(len, graph.values())) > 1000
    assert cycle_in(graph) == []


def test_what_silences_a_checker_says_why() -> None:
    assert {path: lines for path, text in ALL.items() if (lines := unexplained(text))} == {}


def test_no_function_repeats_what_somebody_chose_as_parameters() -> None:
    code = sources("worker", "producer")
    fields = {name: names for text in code.values() for name, names in fields_of(text).items()}
    configs = {name: fields[name] for name in CONFIGS}
    assert all(len(names) > 1 for names in configs.values())
    found = {
        (path, function): (config, names)
        for path, text in code.items()
        for function, config, names in repeated(text, configs, most=2)
    }
    assert {where: what for where, what in found.items() if where not in THE_ENGINE} == {}
    assert set(found) >= THE_ENGINE


def test_lint_holds_the_rest() -> None:
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    # print, parameters, bare suppressions, branches, blind exceptions, unused ones.
    assert {"T20", "PLR0913", "PGH", "C90", "BLE", "RUF"} <= set(lint["select"])
    assert lint["pylint"]["max-args"] == MAX_PARAMETERS
    silent = {pattern for pattern, codes in lint["per-file-ignores"].items() if "T201" in codes}
    assert silent == {"tests/**"}


# That the checks catch what they are for.


def test_a_circle_is_found_wherever_the_import_stands_and_not_for_types_alone() -> None:
    modules = frozenset({"p.a", "p.b", "p.c"})
    texts = {
        "p.a": "from p import b",
        "p.b": "def f():\n    import p.c",
        "p.c": "from p.a import x",
    }
    graph = {name: imports_of(text, modules) for name, text in texts.items()}
    assert graph == {"p.a": {"p.b"}, "p.b": {"p.c"}, "p.c": {"p.a"}}
    assert cycle_in(graph) == ["p.a", "p.b", "p.c"]
    for_types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.a import x"
    assert cycle_in({**graph, "p.c": imports_of(for_types, modules)}) == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("x = 1  # noqa: S101\n", [1]),
        ("x = 1  # noqa\n", [1]),
        ("x = 1  # type: ignore[misc]\n", [1]),
        ("\n# ruff: noqa: D400, D415\n", [2]),
        ("x = 1  # noqa: S101 (checked above)\n", []),
        ("x = 1  # type: ignore[misc]  # it has no types\n", []),
        ("# Nothing else is known of it.\nx = 1  # type: ignore[misc]\n", []),
        ("x = '# noqa: S101'\n", []),
    ],
)
def test_a_silenced_checker_without_a_reason_is_found(source: str, lines: list[int]) -> None:
    assert unexplained(source) == lines


def test_a_function_that_repeats_fields_is_found_unless_it_makes_the_object_or_is_a_command() -> None:
    configs = fields_of("class Plan:\n    a: int\n    b: int\n    c: int\n    def f(self): ...\n")
    assert configs == {"Plan": {"a", "b", "c"}}
    assert repeated("def f(a, *, b, c, d): ...", configs, most=2) == [("f", "Plan", ["a", "b", "c"])]
    assert repeated("def f(a, b, d): ...", configs, most=2) == []
    assert repeated("def f(a, b, c) -> Plan: ...", configs, most=2) == []
    assert repeated("@click.command()\ndef f(a, b, c): ...", configs, most=2) == []
