"""Public docstrings say what a caller must know: shapes, units, errors, and where a method is from."""

from __future__ import annotations

import re

import pytest

from tests.code_shape import ROOT, sources
from tests.docstrings import Context, faults, has_arrays, references, shapes, unsourced

CODE = sources("worker", "producer")
CONTEXT = Context.of(CODE.values())

MATHEMATICS = {
    "worker/audit/drift.py",
    "worker/audit/duplicates.py",
    "worker/audit/exact.py",
    "worker/audit/histogram.py",
    "worker/audit/outliers.py",
    "worker/audit/statistics.py",
    "worker/audit/top_images.py",
    "worker/contract/architectures.py",
    "worker/contract/specs.py",
    "worker/deconv/batch_norm.py",
    "worker/deconv/control.py",
    "worker/deconv/forward.py",
    "worker/deconv/geometry.py",
    "worker/deconv/network.py",
    "worker/deconv/profile.py",
    "worker/deconv/projection.py",
    "worker/deconv/selection.py",
    "worker/deconv/slow.py",
    "worker/deconv/switches.py",
    "worker/deconv/trunk.py",
    "worker/deconv/weights.py",
    "worker/deconv/windows.py",
    "worker/display.py",
    "worker/pipeline/likeness.py",
}
"""Modules that compute by a published method or by one that our documents describe: each says which."""

CARRIERS = {
    "worker/audit/reading.py",
    "worker/pipeline/compute.py",
    "worker/pipeline/engine.py",
    "worker/pipeline/picture.py",
    "worker/pipeline/profiles.py",
    "worker/pipeline/scan.py",
    "worker/pipeline/sprites.py",
}
"""Modules whose arrays are handed on, stored, read or laid side by side, and not computed."""


def test_there_is_something_to_look_at() -> None:
    assert {"StorageFull", "ImageTooSmall", "DeconvoyError"} <= set(CONTEXT.errors)
    assert {"NCHW", "CHW", "NC", "N"} <= shapes()
    assert {"Tensor", "NDArray", "Counts", "Pixels"} <= CONTEXT.arrays


@pytest.mark.parametrize("package", sorted({path.rpartition("/")[0] for path in CODE}))
def test_docstrings_say_shapes_units_and_errors(package: str) -> None:
    of_package = {path: text for path, text in CODE.items() if path.rpartition("/")[0] == package}
    found = [f"{path}: {fault}" for path, text in of_package.items() for fault in faults(text, CONTEXT)]
    assert found == []


def test_mathematics_says_where_it_is_from() -> None:
    found = [f"{path}: {fault}" for path in sorted(MATHEMATICS) for fault in unsourced(CODE[path], CONTEXT)]
    assert found == []
    assert [path for path in sorted(MATHEMATICS) if not references(CODE[path])] == []


def test_every_module_that_takes_or_gives_arrays_is_known_to_compute_or_to_carry() -> None:
    with_arrays = {path for path, text in CODE.items() if has_arrays(text, CONTEXT)}
    assert with_arrays - MATHEMATICS == CARRIERS


def test_sections_of_our_documents_that_are_named_exist() -> None:
    named = {
        reference for text in CODE.values() for reference in references(text) if reference.startswith("docs/")
    }
    assert len(named) >= 2
    for reference in named:
        document, _, section = reference.partition(", ")
        headings = re.findall(r"^#+ (.*)$", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE)
        assert section.strip('"') in headings, reference


# That the rules catch what they are for, and ask for nothing else.

TREE = """
class DeconvoyError(Exception): ...
class StorageError(DeconvoyError): ...
class StorageFull(StorageError): ...
def full(path: str) -> StorageFull: ...
Pixels = npt.NDArray[np.uint8]
"""


def found(source: str) -> list[str]:
    return list(faults(source, Context.of([TREE, source])))


def function(signature: str, docstring: str, body: str = "...") -> str:
    return f'def {signature}:\n    """{docstring}"""\n    {body}\n'


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("def f() -> None: ...", "f: no docstring"),
        ("class A:\n    x: int", "A: no docstring"),
        ('class A:\n    """A."""\n    def f(self) -> None: ...', "A.f: no docstring"),
        (function("f(x: Tensor) -> None", "Do it."), "f: the shape of x is not said"),
        (function("f(x: Tensor) -> None", "Do it with `x`. NCHW is usual."), "f: the shape of x is not said"),
        (function("f(x: Mapping[str, Tensor]) -> None", "Do it."), "f: the shape of x is not said"),
        (function("f(x: Pixels) -> None", "Do it."), "f: the shape of x is not said"),
        (function("f() -> Tensor", "What is asked."), "f: the result's shape is not said"),
        ('class A:\n    """A."""\n    x: Tensor', "A: the shape of x is not said"),
        (function("f(timeout: float) -> None", "Wait."), "f: the unit of timeout is not said"),
        (function("f(offset: int) -> None", "In seconds."), "f: the unit of offset is not said"),
        (
            function("f(width: int | None) -> None", "A `width`. In pixels."),
            "f: the unit of width is not said",
        ),
        ('class A:\n    """A."""\n    shard_size: int', "A: the unit of shard_size is not said"),
        (function("pause() -> float", "How long."), "pause: the result's unit is not said"),
        (
            function("f() -> None", "Do it.", "raise StorageFull('x')"),
            "f: raises StorageFull, which is not named",
        ),
        (function("f() -> None", "Do it.", "raise full('x')"), "f: raises StorageFull, which is not named"),
        (
            function("f() -> None", "Raises StorageFull.", "raise StorageError('x') from None"),
            "f: raises StorageError, which is not named",
        ),
        (
            function("f() -> None", "Do it.", "try: g()\n    except StorageFull: raise"),
            "f: raises StorageFull, which is not named",
        ),
        (
            'class A:\n    """A."""\n    def __init__(self) -> None:\n        raise StorageFull("x")',
            "A.__init__: raises StorageFull, which is not named",
        ),
    ],
)
def test_what_is_not_said_is_found(source: str, fault: str) -> None:
    assert found(source) == [fault]


@pytest.mark.parametrize(
    "source",
    [
        "def _f(x: Tensor) -> Tensor: ...",
        "class _A:\n    x: Tensor",
        function("f(x_NCHW: Tensor) -> None", "Do it."),
        function("f(x: Tensor) -> Tensor", "Of `x` (N, C, H, W) the same, with one channel: N, 1, H, W."),
        function("f_NC() -> Tensor", "Its name says it."),
        function("f(timeout_s: float, n_bytes: int, height_px: int) -> None", "Do it."),
        function("f(offset: int) -> None", "From byte `offset` on."),
        function("f(width: str) -> None", "It is no number."),
        function("pause_s() -> float", "How long."),
        function("f() -> None", "Raises StorageFull.", "raise StorageFull('x')"),
        function("f() -> None", "Do it.", "try: raise StorageFull('x')\n    except StorageError: pass"),
        function("f() -> None", "Raises StorageFull.", "try: g()\n    except StorageError: raise"),
        function("f() -> None", "Raises what `g` raises.", "try: g()\n    except StorageError: raise"),
        function("f() -> None", "Do it.", "raise ValueError('x')"),
        f"@click.command()\n{function('f() -> None', 'Example: f', 'raise StorageFull(1)')}",
        'class A:\n    """Raises StorageFull."""\n    def __init__(self) -> None: raise StorageFull("x")',
        'class A(Protocol):\n    """A width, in pixels."""\n    @property\n    def width(self) -> int: ...',
        'class A:\n    """A."""\n    pause: float\n    """Seconds between two looks."""',
    ],
)
def test_what_is_said_by_the_name_or_in_words_is_enough(source: str) -> None:
    assert found(source) == []


def test_a_method_without_a_source_is_found_unless_it_its_class_or_its_module_names_one() -> None:
    context = Context.of([TREE])
    plain = function("f(x_N: Tensor) -> None", "Do it.")
    assert list(unsourced(plain, context)) == ["f: no source"]
    assert list(unsourced(function("f(n: int) -> None", "Do it."), context)) == []
    for source in ("arXiv 1311.2901", "doi 10.1214/aoms/1177730256", 'docs/mathematics.md, "Windows"'):
        assert list(unsourced(f'"""Source: {source}."""\n{plain}', context)) == []
        assert references(f"Source: {source}.") == [source]


def test_errors_of_inner_functions_and_of_foreign_errors_that_become_ours_count() -> None:
    body = "def g():\n        raise StorageFull('x')\n    try:\n        g()\n    except OSError as error:\n"
    source = function("f() -> None", "Do it.", f"{body}        raise StorageError('x') from error")
    assert {fault.partition(", ")[0] for fault in found(source)} == {
        "f: raises StorageError",
        "f: raises StorageFull",
    }
