"""Programs that a machine may lack: without one a test is skipped, but fails in CI, which installs them."""

from __future__ import annotations

import os
import shutil

import pytest

IN_CI = os.environ.get("CI") == "true"


def chromium() -> str:
    """The path of a Chromium; without one the test that asks is skipped, or fails in CI."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        reason = "there is no Chromium: apt-get install chromium fonts-dejavu"
        if IN_CI:
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def missing(program: str) -> bool:
    """Whether a test that needs the program is to be skipped."""
    return shutil.which(program) is None and not IN_CI
