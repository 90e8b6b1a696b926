"""What is installed is pinned by version and hash, names no index, and is under known licences."""

from __future__ import annotations

import json
import platform
import re
import runpy
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from docs import make_licences

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
IMAGES = {path.stem: path for path in sorted((ROOT / "docker" / "locks").glob("*.txt"))}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENTRY = re.compile(
    r"^(?P<pin>[^\s#][^\\\n]*?) \\\n(?P<hashes>(?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)
PERMISSIVE = {
    *(
        "0BSD",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
    ),
    *("CC0-1.0", "MIT", "MIT-CMU", "PSF-2.0", "Zlib"),
}


def entries(lock: Path) -> dict[str, tuple[str, set[str]]]:
    """By the package's name: its version, and the hashes of its files."""
    found = {}
    for match in ENTRY.finditer(lock.read_text(encoding="utf-8")):
        requirement = Requirement(match["pin"])
        (version,) = requirement.specifier
        assert version.operator == "=="
        found[requirement.name] = version.version, set(re.findall(r"[0-9a-f]{64}", match["hashes"]))
    return found


def asked_for(*extras: str) -> list[Requirement]:
    lines = [*PROJECT["dependencies"]]
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("lock", [LOCK, *IMAGES.values()], ids=lambda path: path.name)
def test_a_lock_is_pins_with_hashes_and_nothing_else(lock: Path) -> None:
    rest = ENTRY.sub("", lock.read_text(encoding="utf-8"))
    assert [line for line in rest.splitlines() if not line.startswith("#")] == []
    assert "://" not in rest
    assert entries(lock)


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        (LOCK, ("worker", "demo", "dev")),
        (IMAGES["producer"], ()),
        (IMAGES["worker"], ("worker",)),
    ],
    ids=["all", "producer", "worker"],
)
def test_what_the_project_asks_for_is_pinned_to_a_version_that_it_admits(
    lock: Path, extras: tuple[str, ...]
) -> None:
    pinned = entries(lock)
    wanted = asked_for(*extras)
    assert len(wanted) >= 9
    for requirement in wanted:
        version, _ = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


@pytest.mark.parametrize("image", IMAGES)
def test_images_install_what_the_tests_ran_with(image: str) -> None:
    everything = entries(LOCK)
    assert {
        name: entry for name, entry in entries(IMAGES[image]).items() if everything.get(name) != entry
    } == {}


def test_without_cuda_only_torch_and_what_nvidia_makes_are_missing() -> None:
    missing = set(entries(IMAGES["worker"])) - set(entries(IMAGES["worker-cpu"]))
    assert {"torch", "torchvision", "triton"} <= missing
    assert {name for name in missing if not name.startswith(("nvidia-", "cuda-"))} == {
        "torch",
        "torchvision",
        "triton",
    }
    assert "torch" not in entries(IMAGES["producer"])


def test_every_installation_of_ours_checks_hashes() -> None:
    texts = {path: (ROOT / path).read_text(encoding="utf-8") for path in ("Makefile", "docker/Dockerfile")}
    lines = [line for text in texts.values() for line in re.findall(r"pip install (.+)", text)]
    unchecked = [line for line in lines if "--require-hashes" not in line and "--no-deps" not in line]
    assert len(lines) >= 8
    assert unchecked == []


def test_licences_are_listed_for_what_is_installed() -> None:
    if sys.platform != "linux" or platform.machine() != "x86_64" or sys.version_info[:2] != (3, 11):
        pytest.skip("the page lists what Linux on x86-64 with Python 3.11 installs")
    assert make_licences.draw_page() == make_licences.PAGE.read_text(encoding="utf-8")


def test_licences_are_permissive_but_for_what_nvidia_makes() -> None:
    rows = re.findall(
        r"^\| (?!package)([a-z0-9-]+) \| [^|]+ \| ([^|]+) \|",
        (ROOT / "docs/licences.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(rows) > 50
    for name, stated in rows:
        if not name.startswith(("nvidia-", "cuda-toolkit")):
            assert set(re.split(r" AND |, ", stated)) <= PERMISSIVE, name


class TestAdvisories:
    """The reports are of the shapes that pip-audit 2.10 gives."""

    judge = staticmethod(runpy.run_path(str(ROOT / ".ci" / "advisories.py"))["judge"])

    def test_an_advisory_is_named_and_fails(self) -> None:
        advisory = {
            "id": "PYSEC-2099-1",
            "fix_versions": ["1.1", "2.0"],
            "aliases": [],
            "description": "long",
        }
        report = {"dependencies": [{"name": "left", "version": "1.0", "vulns": [advisory]}], "fixes": []}
        assert self.judge(json.dumps(report), "Found 1 known vulnerability in 1 package") == (
            False,
            "left 1.0: PYSEC-2099-1, mended in 1.1, 2.0\n"
            "a newer version is pinned with: make lock UPGRADE=NAME",
        )

    def test_no_advisory_passes_and_says_of_how_many(self) -> None:
        clean = {"name": "left", "version": "1.0", "vulns": []}
        unread = {"name": "right", "skip_reason": "Dependency not found on PyPI"}
        report = json.dumps({"dependencies": [clean, unread], "fixes": []})
        assert self.judge(report, "") == (
            True,
            "no advisory speaks of 1 pinned versions; 1 are not on the index",
        )

    def test_an_index_without_advisories_is_said_and_passes(self) -> None:
        report = {"dependencies": [{"name": "right", "skip_reason": "not found"}], "fixes": []}
        assert self.judge(json.dumps(report), "") == (
            True,
            "advisories were not read: the package index serves none",
        )

    def test_an_index_that_cannot_be_reached_is_said_and_passes(self) -> None:
        complaint = "Traceback\n  …\nrequests.exceptions.ProxyError: HTTPSConnectionPool(…): refused\n"
        in_order, what = self.judge("", complaint)
        assert in_order
        assert (
            what
            == "advisories were not read: requests.exceptions.ProxyError: HTTPSConnectionPool(…): refused"
        )

    def test_any_other_failure_fails(self) -> None:
        assert self.judge("", "ERROR: no such option")[0] is False
        assert self.judge("", "")[0] is False
