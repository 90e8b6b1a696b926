"""What stands in docker/, read for tests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
MANIFESTS = sorted((DOCKER / "kubernetes").rglob("*.yaml"))
OWN_IMAGES = {"deconvoy-worker", "deconvoy-producer", "deconvoy-flower"}


def documents(path: Path) -> list[dict[str, Any]]:
    """The YAML documents of a file."""
    return [*yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def services(name: str) -> dict[str, dict[str, Any]]:
    """The services of a compose file."""
    found: dict[str, dict[str, Any]] = documents(DOCKER / name)[0]["services"]
    return found


def manifests(kind: str) -> Iterator[dict[str, Any]]:
    """The Kubernetes objects of a kind, and patches of them."""
    for path in MANIFESTS:
        yield from (each for each in documents(path) if each["kind"] == kind)


def pods() -> dict[str, dict[str, Any]]:
    """`FOLDER/NAME` of each Deployment or patch of one -> the specification of its pods."""
    return {
        f"{path.parent.name}/{each['metadata']['name']}": each["spec"]["template"]["spec"]
        for path in MANIFESTS
        for each in documents(path)
        if each["kind"] == "Deployment"
    }


def last_in_dockerfile(instruction: str, stage: str) -> list[str]:
    """The words of the last `ENTRYPOINT` or `CMD`, in JSON, of a stage."""
    of_stage = re.split(r"^FROM .* AS ", DOCKERFILE, flags=re.MULTILINE)[1:]
    text = next(each for each in of_stage if each.split()[0] == stage)
    words: list[str] = json.loads(re.findall(rf"^{instruction} (\[.*\])$", text, re.MULTILINE)[-1])
    return words


def variables(path: Path) -> dict[str, str]:
    """The variables of an env file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
