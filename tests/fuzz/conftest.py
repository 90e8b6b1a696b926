"""How many inputs there were, and that no test makes this process large."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from tests.fuzz.inputs import FULL, LEAST_IN_ALL, counted

MOST_KB = 400 * 1024
"""No test may make this process larger by more."""


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_KB


@pytest.fixture(scope="package", autouse=True)
def in_all(request: pytest.FixtureRequest) -> Iterator[None]:
    """At length there are enough of all tests together, unless some were left out or have failed."""
    yield
    is_whole = not request.config.getoption("keyword") and not request.session.testsfailed
    assert not (FULL and is_whole) or counted.total() >= LEAST_IN_ALL


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many there were; where tests run in several processes, each has its own."""
    if counted:
        terminalreporter.write_line(f"fuzzing: {counted.total():,} inputs in {len(counted)} tests")
