"""What all fuzzing shares: how many inputs, how they are made out of good ones, and what none may do."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from worker.contract.errors import DeconvoyError

FULL = os.environ.get("CHAOS") == "full"
N_INPUTS = 3_500 if FULL else 20
"""For each test."""
LEAST_IN_ALL = 100_000
LONGEST_S = 20.0
"""No input may take longer; the usual one takes less than a millisecond."""
LONGEST_MESSAGE = 8000

counted: Counter[str] = Counter()
"""Inputs by test."""

fuzzing = settings(
    max_examples=N_INPUTS,
    deadline=None,
    database=None,
    derandomize=not FULL,
    suppress_health_check=[*HealthCheck],
)

_Result = TypeVar("_Result")


def only_ours(function: Callable[..., _Result], *arguments: Any, **keywords: Any) -> _Result | None:
    """What the function gives; None where it raises an error of ours, which must be one short line.

    Whatever else it raises is raised here too, and fails the test.
    """
    counted[os.environ["PYTEST_CURRENT_TEST"].partition(" ")[0]] += 1
    started = time.monotonic()
    try:
        return function(*arguments, **keywords)
    except DeconvoyError as error:
        text = str(error)
        assert text
        assert text.isprintable(), f"not one line of text: {text[:200]!r}"
        assert len(text) <= LONGEST_MESSAGE, f"a message of {len(text)} characters: {text[:200]!r}"
        return None
    finally:
        assert time.monotonic() - started < LONGEST_S


NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**30, -(10**30)]),
    st.floats(),
)
TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["", ".", "..", "/", "../../etc/passwd", "\0", "\n", "s3://", "<script>", "%s%n", "~root"]
    ),
    st.sampled_from(["s3://b/../c", "file:///etc/passwd", "x" * 300, "/dev/zero", "\u2028", "\ud800"]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=8,
)


@st.composite
def changed(draw: st.DrawFn, good: Any) -> Any:
    """A JSON value like `good`, with one thing in it replaced, taken away or added."""
    if isinstance(good, dict) and good and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(good)))
        match draw(st.sampled_from(["inside", "inside", "inside", "without", "beside"])):
            case "inside":
                return {**good, key: draw(changed(good[key]))}
            case "without":
                return {name: value for name, value in good.items() if name != key}
            case _:
                return {**good, draw(TEXTS): draw(VALUES)}
    if isinstance(good, list) and good and draw(st.integers(0, 9)):
        place = draw(st.integers(0, len(good) - 1))
        return [*good[:place], draw(changed(good[place])), *good[place + draw(st.integers(0, 1)) :]]
    return draw(VALUES)


@st.composite
def damaged(draw: st.DrawFn, *good: bytes) -> bytes:
    """Bytes like one of `good`, with some of them changed, cut off, doubled or put in; or any bytes."""
    data = bytearray(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["set", "flip", "cut", "insert", "double", "number"])):
            case "set" if data:
                data[place] = draw(st.integers(0, 255))
            case "flip" if data:
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[place : place + draw(st.sampled_from([1, 4, 100, 10**6]))]
            case "insert":
                data[place:place] = draw(st.binary(max_size=20))
            case "double":
                data[place:place] = data[place : place + draw(st.integers(1, 60))]
            case "number":
                n_bytes = draw(st.sampled_from([2, 4, 8]))
                value = draw(st.sampled_from([0, 1, 2**15, 2**31, 2**32, 2**63, 2**64])) % 256**n_bytes
                data[place : place + n_bytes] = value.to_bytes(n_bytes, "little")
            case _:
                data = bytearray(draw(st.binary(max_size=50)))
    return bytes(data)


def lines(*good: bytes) -> st.SearchStrategy[bytes]:
    """Several lines, of which some are damaged."""
    return st.lists(damaged(*good), max_size=5).map(b"\n".join)


def texts_like(parts: Sequence[str]) -> st.SearchStrategy[str]:
    """Texts of these parts in any order, and of others."""
    return st.lists(st.one_of(st.sampled_from(parts), TEXTS), max_size=8).map("".join)
