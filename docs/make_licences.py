"""Writes docs/licences.md: what an installation brings along, and under which licences.

`python docs/make_licences.py`, in the environment of `make setup` on Linux with Python 3.11: the licences are
those that the installed packages state of themselves.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
_PIN = re.compile(r"^([a-z0-9-]+)==([^ ;\\]+)", re.MULTILINE)
_IN_SHORT = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "Other/Proprietary License": "LicenseRef-NVIDIA-Proprietary",
    "NVIDIA Proprietary Software": "LicenseRef-NVIDIA-Proprietary",
}
_UNSTATED = "not stated"

_HEAD = """# Licences

Deconvoy is under the [MIT licence](../LICENSE). What `pip install` brings along with it on Linux with Python
3.11 is below, as each package states it; what submits and watches needs the first kind alone. The packages
of NVIDIA are what torch computes with on a GPU: they are proprietary, and come from the package index, not
from us; `cuda-toolkit` is empty and only names others of them. Tools for development are not listed: nothing
of them is in an image. `python docs/make_licences.py` writes this page.

| package | version | licence | needed by |
|---|---|---|---|
"""


def draw_page() -> str:
    """The whole page, for what is pinned and installed."""
    producer, worker = (pins(name) for name in ("producer", "worker"))
    rows = [
        f"| {name} | {version} | {licence(name)} | {'producer' if name in producer else 'worker'} |"
        for name, version in sorted(worker.items(), key=lambda pin: (pin[0] not in producer, pin[0]))
        if is_installed(name)
    ]
    return _HEAD + "\n".join(rows) + "\n"


def pins(image: str) -> dict[str, str]:
    """Versions by package name of what an image installs."""
    return dict(_PIN.findall((ROOT / "docker" / "locks" / f"{image}.txt").read_text(encoding="utf-8")))


def is_installed(name: str) -> bool:
    """Whether the package is there: some are pinned for other platforms."""
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def licence(name: str) -> str:
    """What the package says of itself: an SPDX expression, else its classifiers, else its own words."""
    stated = metadata.metadata(name)
    if stated["License-Expression"]:
        return str(stated["License-Expression"])
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in stated.get_all("Classifier", [])
        if line.startswith("License ::") and not line.endswith("OSI Approved")
    ]
    words = classifiers or [stated["License"] or _UNSTATED]
    return ", ".join(_IN_SHORT.get(word, word) for word in words)


if __name__ == "__main__":
    PAGE.write_text(draw_page(), encoding="utf-8")
