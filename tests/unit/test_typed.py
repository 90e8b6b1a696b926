"""Type hints reach users: the wheel carries the marks, and mypy --strict sees both interfaces through it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.length import at_length

ROOT = Path(__file__).parents[2]

SCRIPT = '''
"""Uses both interfaces, and says of what they give which type it is."""

from pathlib import Path

import torch

from producer import audit, open_job, submit
from worker.deconv import Deconvnet

net = Deconvnet.load("hed", device="cpu", precision="fp32", cache_dir=Path("weights"))
x_NCHW = net.normalise(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
for result in net.project(x_NCHW, ["pool5:max", "pool3:top:4"]):
    reveal_type(result.unit)
    reveal_type(result.pixels_CHW)
    reveal_type(result.window.left)
    reveal_type(result.spec.layer.name)

job = submit("photos/", out="results", weights="hed", specs=["pool5:top:9"], size_px=96)
reveal_type(job.wait().n_failed)
reveal_type(open_job(job.place).id)
for failure in job.failures():
    reveal_type(failure.image)
reveal_type(audit(["photos/"], out="audits", layers=["pool5"], top=9).place)

submit("photos/", out="results", wieghts="hed")
'''

REVEALED = [
    "int | None",
    "torch._tensor.Tensor",
    "int",
    "str",
    "int",
    "str",
    "str",
    "str",
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built where nothing is left in the tree."""
    tree = tmp_path_factory.mktemp("tree")
    for folder in ("worker", "producer"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, tree)
    build = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=tree, check=True, capture_output=True)
    (built,) = (tree / "dist").glob("*.whl")
    return built


def test_the_wheel_says_that_it_has_types_and_carries_what_the_pages_need(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    data = {
        path for folder in ("worker", "producer") for path in (ROOT / folder).rglob("*") if path.is_file()
    }
    expected = {path.relative_to(ROOT).as_posix() for path in data if path.suffix != ".pyc"}
    assert {"worker/py.typed", "producer/py.typed", "worker/report/page.html"} <= expected
    assert {name for name in names if ".dist-info/" not in name} == expected


@at_length
@pytest.mark.timeout(900)
def test_mypy_strict_sees_the_types_of_both_interfaces(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    # What deconvoy needs is had from here, and this tree is not: a folder's own .pth files are not followed.
    torch = find_spec("torch")
    assert torch is not None
    assert torch.origin is not None
    (packages / "needed.pth").write_text(str(Path(torch.origin).parents[1]))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    options = ["--strict", "--python-executable", str(tmp_path / "venv" / "bin" / "python")]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *options, script.name], cwd=tmp_path, capture_output=True, text=True
    )
    lines = run.stdout.splitlines()
    revealed = [line.partition("Revealed type is ")[2].strip('"') for line in lines if "Revealed" in line]
    errors = [line.rpartition("[")[2].rstrip("]") for line in lines if ": error:" in line]
    assert revealed == REVEALED, run.stdout + run.stderr
    # Only the line that is wrong on purpose.
    assert errors == ["call-arg"], run.stdout
