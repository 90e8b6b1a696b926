"""What a public docstring must say, asked of the source alone: shapes, units, errors, and where it is from.

A rule asks only where there is something to say: of an array its shape, of a quantity its unit, of a raised
error of ours its name, of a published method its source. What a name says already (`x_NCHW`, `timeout_s`)
need not be said again.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from tests.code_shape import ROOT, is_command, parsed

NUMBER = re.compile(r"(?:int|float)(?: \| None)?|tuple\[(?:int|float)(?:, (?:int|float|\.\.\.))*\]")
ONE_AXIS = r"(?:[A-Z](?://2)?|\d+)"


@dataclass(frozen=True)
class Quantity:
    """What has a unit: the words that name it, endings of a name that say its unit, and units in a text."""

    words: str
    endings: str
    units: re.Pattern[str]


QUANTITIES = (
    Quantity(
        "age delay duration elapsed expires grace interval pause seconds timeout ttl",
        "s ms seconds",
        re.compile(r"\b(?:seconds?|s|ms|minutes?|hours?|days?)\b", re.IGNORECASE),
    ),
    Quantity(
        "height length memory offset reach side size stride width",
        "px bytes elements images",
        re.compile(r"\b(?:bytes?|pixels?|places?|images?|values?|rows?|columns?|[KMG]iB)\b", re.IGNORECASE),
    ),
    Quantity(
        "frequency rate speed throughput",
        "hz",
        re.compile(r"\b(?:share|part|a second|per second)\b", re.IGNORECASE),
    ),
)


@cache
def shapes() -> frozenset[str]:
    """The shapes that names may end in, as the linter is told."""
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    return frozenset(name.removeprefix("*_") for name in lint["pep8-naming"]["extend-ignore-names"])


@cache
def _shape() -> re.Pattern[str]:
    """A shape in a text: a name that ends in one, one alone, or its axes one by one: N, 3, H, W or (N)."""
    any_of = "|".join(sorted(shapes(), key=len, reverse=True))
    alone = "|".join(name for name in sorted(shapes(), key=len, reverse=True) if len(name) > 1)
    one_by_one = rf"\([A-Z]\)|(?<!\w){ONE_AXIS}(?:, {ONE_AXIS})+(?!\w)"
    return re.compile(rf"\b\w+_(?:{any_of})\b|\b(?:{alone})\b|{one_by_one}")


@dataclass(frozen=True)
class Context:
    """What is known of all sources together.

    `errors`: each error of ours -> itself and those above it; `makers`: a function that makes such errors
    -> their names; `arrays`: names that stand for a type of arrays.
    """

    errors: Mapping[str, frozenset[str]]
    makers: Mapping[str, frozenset[str]]
    arrays: frozenset[str]

    @classmethod
    def of(cls, sources: Iterable[str]) -> Context:
        """Look through the sources."""
        bases: dict[str, str] = {"DeconvoyError": ""}
        texts = list(sources)
        nodes = [node for text in texts for node in ast.walk(parsed(text))]
        classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
        for _ in range(5):  # as deep as the tree of errors may be
            bases |= {
                node.name: ast.unparse(node.bases[0])
                for node in classes
                if node.bases and ast.unparse(node.bases[0]) in bases
            }
        errors = {name: frozenset(_line_of(name, bases)) for name in bases}
        makers: dict[str, frozenset[str]] = {}
        arrays = {"Tensor", "NDArray", "ndarray"}
        for node in nodes:
            if isinstance(node, ast.FunctionDef) and node.returns is not None:
                made = frozenset(re.findall(r"\w+", ast.unparse(node.returns)))
                if made and made <= errors.keys():
                    makers[node.name] = made
        for text in texts:
            for statement in parsed(text).body:
                if isinstance(statement, ast.Assign) and "NDArray[" in ast.unparse(statement.value):
                    arrays |= {ast.unparse(target) for target in statement.targets}
        return cls(errors, makers, frozenset(arrays))

    def is_array(self, annotation: ast.expr | None) -> bool:
        """Whether a value of this type is, or holds, an array."""
        words = re.findall(r"\w+", ast.unparse(annotation)) if annotation is not None else []
        return not self.arrays.isdisjoint(words) and "Callable" not in words


@dataclass
class Thing:
    """Something public: its name in the file, its node, its own docstring, and that of its class."""

    name: str
    node: ast.FunctionDef | ast.ClassDef
    text: str
    above: str = ""
    is_member_of_protocol: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)


def public(source: str) -> Iterator[Thing]:
    """The public functions, classes and methods of a module, `__init__` and `__call__` included."""
    for node in parsed(source).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield Thing(node.name, node, _text(node))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            text = _text(node)
            yield Thing(node.name, node, text, notes=_notes(node))
            is_protocol = any("Protocol" in ast.unparse(base) for base in node.bases)
            for member in node.body:
                if not isinstance(member, ast.FunctionDef):
                    continue
                if not member.name.startswith("_") or member.name in ("__init__", "__call__"):
                    name = f"{node.name}.{member.name}"
                    yield Thing(name, member, _text(member), text, is_protocol)


def faults(source: str, context: Context) -> Iterator[str]:
    """What the docstrings of a module do not say, a line each."""
    for thing in public(source):
        if isinstance(thing.node, ast.ClassDef):
            if not thing.text:
                yield f"{thing.name}: no docstring"
            yield from _of_fields(thing, thing.node, context)
            continue
        is_made = thing.node.name == "__init__"
        if not thing.text and not is_made and not thing.is_member_of_protocol:
            yield f"{thing.name}: no docstring"
        # What is said of a class as a whole need not be said of its making again.
        text = f"{thing.text} {thing.above}" if is_made else thing.text
        yield from _of_signature(thing, thing.node, text, context)
        for error in sorted(raised(thing.node, context)):
            if not _says(text, error, context) and not _of_every_method(thing.above, error):
                yield f"{thing.name}: raises {error.removesuffix('+')}, which is not named"


def raised(function: ast.FunctionDef, context: Context) -> set[str]:
    """The errors of ours that a function raises in its own body and does not catch itself.

    What a handler passes on as it came has a `+` behind its name: it may be any error below that.
    """
    if any(map(is_command, function.decorator_list)):
        return set()  # its docstring is its help, and whoever types it gets the error's one line
    return set(_raised(function.body, (), (), context))


def references(text: str) -> list[str]:
    """Where a text says that something is from: arXiv, a DOI, an address, or a section of our documents."""
    kinds = (
        r"arXiv \d{4}\.\d{4,5}",
        r"doi 10\.\d{4,}/[^\s,;]*[^\s,;.)]",
        r"https?://[^\s,;]*[^\s,;.)]",
        r'docs/\w+\.md,\s+"[^"]+"',
    )
    return [" ".join(found.split()) for kind in kinds for found in re.findall(kind, text)]


def unsourced(source: str, context: Context) -> Iterator[str]:
    """Public functions and methods that take or give arrays and whose source is nowhere said: not by them,
    by their class or by their module.
    """
    module = ast.get_docstring(parsed(source)) or ""
    for thing in public(source):
        is_asked = isinstance(thing.node, ast.FunctionDef) and _has_arrays(thing.node, context)
        if is_asked and not references(f"{thing.text} {thing.above} {module}"):
            yield f"{thing.name}: no source"


def has_arrays(source: str, context: Context) -> bool:
    """Whether any public function or method of a module takes or gives arrays."""
    return any(
        _has_arrays(thing.node, context)
        for thing in public(source)
        if isinstance(thing.node, ast.FunctionDef)
    )


def _has_arrays(function: ast.FunctionDef, context: Context) -> bool:
    annotations = [argument.annotation for argument in _arguments(function)]
    return any(context.is_array(annotation) for annotation in (*annotations, function.returns))


def _of_signature(thing: Thing, function: ast.FunctionDef, text: str, context: Context) -> Iterator[str]:
    for argument in _arguments(function):
        yield from _of_value(thing.name, argument.arg, argument.annotation, text, context)
    own = function.name
    if context.is_array(function.returns) and not _carries_shape(own) and not _shape().search(text):
        yield f"{thing.name}: the result's shape is not said"
    quantity = _quantity(own, function.returns)
    if quantity is not None and not quantity.units.search(text) and not thing.is_member_of_protocol:
        yield f"{thing.name}: the result's unit is not said"


def _of_fields(thing: Thing, node: ast.ClassDef, context: Context) -> Iterator[str]:
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            if not name.startswith("_"):
                text = f"{thing.text} {name} {thing.notes.get(name, '')}"
                yield from _of_value(thing.name, name, statement.annotation, text, context)


def _of_value(
    where: str, name: str, annotation: ast.expr | None, text: str, context: Context
) -> Iterator[str]:
    if context.is_array(annotation) and not _carries_shape(name) and not _said(text, name, _shape()):
        yield f"{where}: the shape of {name} is not said"
    quantity = _quantity(name, annotation)
    if quantity is not None and not _said(text, name, quantity.units):
        yield f"{where}: the unit of {name} is not said"


def _quantity(name: str, annotation: ast.expr | None) -> Quantity | None:
    """The quantity that a number of this name is, if its name does not say its unit."""
    if annotation is None or not NUMBER.fullmatch(ast.unparse(annotation)):
        return None
    words = name.lower().split("_")
    if any(words[-1] in quantity.endings.split() for quantity in QUANTITIES):
        return None
    return next(
        (quantity for quantity in QUANTITIES if not {*words}.isdisjoint(quantity.words.split())), None
    )


def _said(text: str, name: str, what: re.Pattern[str]) -> bool:
    """Whether one sentence has both the name and what is to be said of it."""
    named = re.compile(rf"\b{re.escape(name)}\b", re.IGNORECASE)
    return any(named.search(sentence) and what.search(sentence) for sentence in _sentences(text))


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+", " ".join(text.split()))


def _carries_shape(name: str) -> bool:
    return "_" in name and name.rpartition("_")[2] in shapes()


def _names(text: str, error: str) -> bool:
    return re.search(rf"\b{error}\b", text) is not None


def _says(text: str, error: str, context: Context) -> bool:
    """Whether an error is named; of a group that is passed on (`+`) one, or whose errors they are."""
    group = error.removesuffix("+")
    if group == error:
        return _names(text, error)
    members = (name for name, above in context.errors.items() if group in above)
    return "Raises what `" in text or any(_names(text, name) for name in members)


def _of_every_method(text: str, error: str) -> bool:
    return any(
        re.match(r"Every method\b", sentence) and _names(sentence, error) for sentence in _sentences(text)
    )


def _raised(
    statements: Iterable[ast.AST], caught: tuple[str, ...], handled: tuple[str, ...], context: Context
) -> Iterator[str]:
    """`caught` are the names that an outer `try` catches; `handled` those of the handler that this is in."""
    for node in statements:
        if isinstance(node, ast.Try):
            here = tuple(name for handler in node.handlers for name in _caught(handler))
            yield from _raised(node.body, (*caught, *here), handled, context)
            for handler in node.handlers:
                yield from _raised(handler.body, caught, _caught(handler), context)
            yield from _raised([*node.orelse, *node.finalbody], caught, handled, context)
        elif isinstance(node, ast.Raise):
            names = handled if node.exc is None else _made(node.exc, context)
            for name in names:
                if name in context.errors and context.errors[name].isdisjoint(caught):
                    yield f"{name}+" if node.exc is None else name
        else:
            yield from _raised(ast.iter_child_nodes(node), caught, handled, context)


def _caught(handler: ast.ExceptHandler) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", ast.unparse(handler.type))) if handler.type is not None else ()


def _made(raised_: ast.expr, context: Context) -> Iterable[str]:
    name = ast.unparse(raised_.func if isinstance(raised_, ast.Call) else raised_)
    return context.makers.get(name, {name})


def _line_of(name: str, bases: Mapping[str, str]) -> Iterator[str]:
    while name in bases:
        yield name
        name = bases[name]


def _arguments(function: ast.FunctionDef) -> list[ast.arg]:
    arguments = function.args
    return [
        argument
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        if argument.arg not in ("self", "cls")
    ]


def _text(node: ast.FunctionDef | ast.ClassDef) -> str:
    return ast.get_docstring(node) or ""


def _notes(node: ast.ClassDef) -> dict[str, str]:
    """The texts that stand below fields."""
    notes = {}
    for before, after in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            notes[ast.unparse(before.target)] = str(after.value.value)
    return notes
