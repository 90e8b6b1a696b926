"""Nothing in the code can unpickle, run text as code, or ask a shell: neither by a call nor by a default."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.messages import pickled
from worker.app import create_app
from worker.contract import queue
from worker.contract.errors import WeightsError
from worker.contract.settings import Settings
from worker.deconv.weights import load_weights

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for part in ("worker", "producer", "docker") for path in (ROOT / part).rglob("*.py"))
FORBIDDEN_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "yaml",
}
FORBIDDEN_BUILTINS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_CALLS = {"system", "popen", "unsafe_load", "read_pickle"}


def calls() -> Iterator[tuple[Path, ast.Call, str, str]]:
    """Every call: its file, itself, and the two names at its end, as in `torch.load`."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                function = node.func
                if isinstance(function, ast.Attribute):
                    owner = function.value
                    yield path, node, owner.id if isinstance(owner, ast.Name) else "…", function.attr
                elif isinstance(function, ast.Name):
                    yield path, node, "", function.id


def option(call: ast.Call, name: str) -> object:
    values = [word.value for word in call.keywords if word.arg == name]
    return values[0].value if values and isinstance(values[0], ast.Constant) else None


def test_there_is_something_to_look_at() -> None:
    assert {"tasks.py", "weights.py", "broker.py"} <= {path.name for path in SOURCES}
    assert sum(1 for _ in calls()) > 1000


def test_no_module_that_unpickles_is_imported() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & FORBIDDEN_MODULES, path


def test_nothing_runs_text_as_code_or_asks_a_shell() -> None:
    for path, call, owner, name in calls():
        forbidden = FORBIDDEN_CALLS if owner else FORBIDDEN_BUILTINS
        assert name not in forbidden, (path, call.lineno)
        assert option(call, "shell") is not True, (path, call.lineno)


def test_what_could_unpickle_is_told_not_to() -> None:
    for path, call, owner, name in calls():
        if (owner, name) == ("torch", "load"):
            assert option(call, "weights_only") is True, (path, call.lineno)
        assert option(call, "allow_pickle") is not True, (path, call.lineno)
    assert np.load.__kwdefaults__ is None or not np.load.__kwdefaults__.get("allow_pickle")


def test_workers_take_json_alone() -> None:
    conf = create_app(Settings(redis_url="redis://localhost")).conf
    assert conf.accept_content == ["json"]
    assert conf.task_serializer == "json"
    assert conf.event_serializer == "json"
    assert conf.worker_enable_remote_control is False
    assert queue.shared_config(900)["accept_content"] == ["json"]


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_a_pickle_that_calls_itself_weights_is_not_run(tmp_path: Path, suffix: str) -> None:
    trap, path = tmp_path / "trap", tmp_path / f"weights{suffix}"
    path.write_bytes(pickled(trap))
    with pytest.raises(WeightsError):
        load_weights(str(path))
    assert not trap.exists()


def test_weights_that_are_a_pipe_are_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    os.mkfifo(path)
    with pytest.raises(WeightsError, match="there is no such file"):
        load_weights(str(path))
