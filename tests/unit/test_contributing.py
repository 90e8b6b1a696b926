"""CONTRIBUTING is right about layers, choices and the hook. Its walks: `tests/integration/test_walks.py`."""

from __future__ import annotations

import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from worker.contract.architectures import MODELS
from worker.contract.formats import PICTURE_FORMATS

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COMMAND_LINE = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
SEEN_BY_THE_PRODUCER = {"worker.contract", "worker.storage"}


def contracts() -> list[dict[str, Any]]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        found: list[dict[str, Any]] = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    return found


def layers() -> list[set[str]]:
    """The layers that import-linter holds, from the top; those of one set do not know each other."""
    (contract,) = (contract for contract in contracts() if contract["type"] == "layers")
    return [set(layer.split(" | ")) for layer in contract["layers"]]


def drawn() -> list[set[str]]:
    """The layers as CONTRIBUTING draws them below the producer; a line that begins with a space goes on."""
    drawing = CONTRIBUTING.partition("## Architecture")[2].split("```")[1].strip("\n").splitlines()
    found: list[set[str]] = []
    for line in drawing:
        names = set(re.findall(r"(?:^|\s{2})(worker\.\w+|producer)(?=\s|$)", line))
        if line.startswith(" "):
            found[-1] |= names
        else:
            found.append(names)
    assert found[0] == {"producer"}
    return found[1:]


def test_the_layers_are_drawn_as_import_linter_holds_them() -> None:
    assert drawn() == layers()


def test_every_file_that_is_named_exists_but_the_one_that_a_walk_makes() -> None:
    named = set(re.findall(r"`((?:worker|producer|tests|docs|docker)/[\w./]+)`", CONTRIBUTING))
    assert len(named) > 40
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    assert not (ROOT / "worker" / "storage" / "sqlite.py").exists()


def test_every_module_of_the_worker_is_in_a_layer() -> None:
    modules = {f"worker.{module.name}" for module in pkgutil.iter_modules([str(ROOT / "worker")])}
    assert set.union(*layers()) == modules


def test_the_producer_is_kept_from_every_layer_but_the_contract_and_the_store() -> None:
    (contract,) = (contract for contract in contracts() if contract.get("source_modules") == ["producer"])
    assert set(contract["forbidden_modules"]) == set.union(*layers()) - SEEN_BY_THE_PRODUCER


@pytest.mark.parametrize(
    ("option", "choices"),
    [("--format", [*PICTURE_FORMATS]), ("--model", [m for m in MODELS if m[-3:] != "_bn"])],
)
def test_every_choice_of_an_option_that_grows_by_a_row_is_documented(option: str, choices: list[str]) -> None:
    (row,) = re.findall(rf"^\| `{option}` \|.*$", COMMAND_LINE, re.MULTILINE)
    assert [choice for choice in choices if f"`{choice}`" not in row] == []


@pytest.mark.parametrize(("lint", "committed"), [("true", True), ("echo a fault; false", False)])
def test_the_hook_lets_a_commit_pass_if_make_lint_does(tmp_path: Path, lint: str, committed: bool) -> None:
    # The tests themselves may run in a hook, which git tells of its own repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["PRE_COMMIT_HOME"] = str(tmp_path / "kept")

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )

    run("git", "init", "--quiet")
    shutil.copy(ROOT / ".pre-commit-config.yaml", tmp_path)
    (tmp_path / "Makefile").write_text(f"lint:\n\t@{lint}\n")
    (tmp_path / ".gitignore").write_text("kept/\n")
    run(sys.executable, "-m", "pre_commit", "install").check_returncode()
    run("git", "add", ".")

    done = run("git", "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-m", "All of it")

    assert (done.returncode == 0) is committed, done.stderr
    assert (run("git", "log", "--format=%s").stdout == "All of it\n") is committed
    assert ("a fault" in done.stderr) is not committed
