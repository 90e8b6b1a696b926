"""Reads sources for tests about the shape of the code: imports, cycles, suppressions, parameters."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUPPRESSION = re.compile(r"#\s*(?:ruff: )?(?:noqa|type: ignore)(?:: ?[A-Z0-9, ]+|\[[a-z-]+\])?")
COMMAND = re.compile(r"(^|\.)(command|group)$")


def sources(*folders: str) -> dict[str, str]:
    """The text of all Python files below these folders, by path from the root."""
    paths = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


@cache
def parsed(source: str) -> ast.Module:
    """The syntax tree of a source; each is asked for several times."""
    return ast.parse(source)


def module_of(path: str) -> str:
    """The name of a module by its path, a package's without `__init__`."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports_of(source: str, modules: frozenset[str]) -> set[str]:
    """Those of `modules` that a source imports, wherever it does so, but not for type checkers alone."""
    found: set[str] = set()
    for node in _at_run_time(parsed(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in modules else node.module)
    return found & modules


def cycle_in(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, in its order; none: an empty list."""
    done: set[str] = set()

    def look(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        for imported in sorted(graph.get(module, ())):
            circle = look(imported, [*path, module])
            if circle:
                return circle
        done.add(module)
        return []

    return next((circle for circle in (look(module, []) for module in sorted(graph)) if circle), [])


def unexplained(source: str) -> list[int]:
    """Lines that silence a checker and say why neither behind it nor in a comment right above."""
    lines = source.splitlines()
    found = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        match = SUPPRESSION.search(token.string) if token.type == tokenize.COMMENT else None
        if match is None:
            continue
        line = token.start[0]
        above = lines[line - 2].strip() if line > 1 else ""
        if not re.search(r"\w\w", token.string[match.end() :]) and not above.startswith("#"):
            found.append(line)
    return found


def fields_of(source: str) -> dict[str, set[str]]:
    """The annotated fields of each class."""
    return {
        node.name: {
            field.target.id
            for field in node.body
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        }
        for node in ast.walk(parsed(source))
        if isinstance(node, ast.ClassDef)
    }


def repeated(source: str, configs: Mapping[str, set[str]], most: int) -> list[tuple[str, str, list[str]]]:
    """Functions whose parameters repeat more than `most` fields of a class, which they could take instead.

    Not those that make one of it (it is their result), nor commands of click, whose parameters are options.
    """
    found = []
    for node in ast.walk(parsed(source)):
        if not isinstance(node, ast.FunctionDef) or any(map(is_command, node.decorator_list)):
            continue
        arguments = node.args
        names = {
            argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        }
        result = ast.unparse(node.returns) if node.returns is not None else ""
        for name, fields in configs.items():
            if len(names & fields) > most and not re.search(rf"\b{name}\b", result):
                found.append((node.name, name, sorted(names & fields)))
    return found


def is_command(decorator: ast.expr) -> bool:
    """Whether this makes a command of click out of a function."""
    return isinstance(decorator, ast.Call) and COMMAND.search(ast.unparse(decorator.func)) is not None


def _at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _at_run_time(child)
