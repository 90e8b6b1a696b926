"""Whether an advisory speaks of a version that is pinned: what pip-audit says of requirements.lock.

A known vulnerability fails `make lint`. Where the package index does not serve advisories, or cannot be
reached, one line says that they were not read: a check that was not made must not look like one that passed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"
_NOT_REACHED = ("requests.exceptions.", "urllib3.exceptions.", "ERROR:pip_audit._cli:Could not connect")


def read_advisories(lock: Path) -> tuple[bool, str]:
    """Ask pip-audit of every pin: whether that is in order, and what is to be said of it."""
    command = [sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip"]
    command += ["--progress-spinner", "off", "--format", "json", "--requirement", str(lock)]
    ended = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 - our own words alone
    return judge(ended.stdout, ended.stderr)


def judge(report: str, complaint: str) -> tuple[bool, str]:
    """What pip-audit's JSON on stdout, or without one its stderr, comes to."""
    try:
        dependencies = json.loads(report)["dependencies"]
    except ValueError:
        last_line = complaint.strip().rpartition("\n")[2]
        return last_line.startswith(_NOT_REACHED), f"advisories were not read: {last_line}"
    audited = [each for each in dependencies if "skip_reason" not in each]
    found = [
        f"{each['name']} {each['version']}: {advisory['id']}, mended in {_versions(advisory['fix_versions'])}"
        for each in audited
        for advisory in each["vulns"]
    ]
    if found:
        return False, "\n".join([*found, "a newer version is pinned with: make lock UPGRADE=NAME"])
    if not audited:
        return True, "advisories were not read: the package index serves none"
    unread = len(dependencies) - len(audited)
    return True, f"no advisory speaks of {len(audited)} pinned versions; {unread} are not on the index"


def _versions(versions: list[str]) -> str:
    return ", ".join(versions) or "no version yet"


if __name__ == "__main__":
    in_order, what = read_advisories(LOCK)
    print(what, file=sys.stdout if in_order else sys.stderr)
    sys.exit(0 if in_order else 1)
