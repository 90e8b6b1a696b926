"""What `deconvoy --version` prints: our version, and those of what decides how we work."""

from __future__ import annotations

import ast
import platform
from importlib import metadata
from pathlib import Path

_PACKAGES = {
    "celery": "celery",
    "redis-py": "redis",
    "pyarrow": "pyarrow",
    "boto3": "boto3",
    "torch": "torch",
    "torchvision": "torchvision",
}
"""What a component is called, and the distribution that it comes in."""


def report() -> str:
    """First `deconvoy X.Y.Z`, then a line for each component. Nothing of what it names is imported."""
    components = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version(distribution) for name, distribution in _PACKAGES.items()},
    }
    return "\n".join(
        [
            f"deconvoy {metadata.version('deconvoy')}",
            *(f"{name:12}{version}" for name, version in components.items()),
        ]
    )


def _version(name: str) -> str:
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return "not installed"
    if name == "torch":
        return f"{distribution.version}, {cuda_of(Path(str(distribution.locate_file('torch/version.py'))))}"
    return distribution.version


def cuda_of(version_file: Path) -> str:
    """The CUDA that torch was built for: a wheel's name does not always tell, and importing takes seconds."""
    try:
        module = ast.parse(version_file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return "CUDA unknown"
    for node in module.body:
        match node:
            case (
                ast.AnnAssign(target=ast.Name("cuda"), value=ast.Constant(cuda))
                | ast.Assign(targets=[ast.Name("cuda")], value=ast.Constant(cuda))
            ):
                return f"CUDA {cuda}" if isinstance(cuda, str) else "without CUDA"
    return "CUDA unknown"
