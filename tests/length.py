"""What takes long and runs only when it is asked for: `make chaos`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import pytest

_Test = TypeVar("_Test", bound=Callable[..., object])

AT_LENGTH = (
    pytest.mark.at_length,
    pytest.mark.skipif(os.environ.get("CHAOS") != "full", reason="takes long: make chaos"),
)
"""For `pytestmark` of a module."""


def at_length(test: _Test) -> _Test:
    """Leave this test out of `make test`."""
    for mark in AT_LENGTH:
        test = mark(test)
    return test
