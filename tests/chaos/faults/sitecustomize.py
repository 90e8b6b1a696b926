"""Faults inside a worker: Python runs this file first in every process that has its folder on PYTHONPATH.

A file's bytes say what its decoding does to the process; files in the folder CHAOS_FOLDER say the rest.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

FOLDER: Final = Path(os.environ.get("CHAOS_FOLDER", ""))
PROJECTED = "projected"
"""Gets a line for each image that the network has done: process id, and the image's key."""
SECONDS_AN_IMAGE = "seconds-an-image"
"""How long the network takes over an image besides, so that a fault can be timed."""
DIE_BEFORE_RECORD = "die-before-record"
"""While it stands: who takes it away dies, when all is stored but the record."""
KILLS, HANGS = b"chaos: kills", b"chaos: hangs"


def die() -> None:
    """As by the kernel's hand: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def spoil_decoding(module: Any) -> None:
    decode_image = module.decode_image

    def decode(data: bytes, max_pixels: int) -> object:
        if KILLS in data:
            die()
        while HANGS in data:
            time.sleep(3600)
        return decode_image(data, max_pixels)

    module.decode_image = decode


def count_and_slow_down(module: Any) -> None:
    module.Projector._up_and_down = _counted_and_slow(module.Projector._up_and_down)


def count_and_slow_down_scan(module: Any) -> None:
    module.Profiler.__call__ = _counted_and_slow(module.Profiler.__call__)


def _counted_and_slow(step: Callable[[object, Sequence[Any]], object]) -> Callable[..., object]:
    def slowly(self: object, images: Sequence[Any]) -> object:
        time.sleep(float((FOLDER / SECONDS_AN_IMAGE).read_text()) * len(images))
        result = step(self, images)
        lines = "".join(f"{os.getpid()} {image.entry.key}\n" for image in images)
        with (FOLDER / PROJECTED).open("a") as file:
            file.write(lines)
        return result

    return slowly


def die_before_record(module: Any) -> None:
    to_parquet = module.to_parquet

    def dying(*arguments: Any) -> object:
        try:
            (FOLDER / DIE_BEFORE_RECORD).unlink()
        except FileNotFoundError:
            return to_parquet(*arguments)
        die()
        return None

    module.to_parquet = dying


def certify_quickly(module: Any) -> None:
    """Each new process would measure its network for seconds, which no fault here has to do with."""
    module.certify = lambda _network: SimpleNamespace(to_dict=dict)


PATCHES: Final[dict[str, Callable[[ModuleType], None]]] = {
    "worker.contract.records": die_before_record,
    "worker.deconv": certify_quickly,
    "worker.pipeline.compute": count_and_slow_down,
    "worker.pipeline.loading": spoil_decoding,
    "worker.pipeline.scan": count_and_slow_down_scan,
}


class Patching(importlib.abc.MetaPathFinder):
    """Finds the modules of PATCHES as usual, and changes them once they are loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        patch = PATCHES.get(fullname)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path) if patch else None
        if patch is None or spec is None or spec.loader is None:
            return None
        exec_module = spec.loader.exec_module

        def exec_and_patch(module: ModuleType) -> None:
            exec_module(module)
            patch(module)

        spec.loader.exec_module = exec_and_patch  # type: ignore[method-assign]  # the fault itself
        return spec


# Tests import this file too, for its names.
if "CHAOS_FOLDER" in os.environ:
    sys.meta_path.insert(0, Patching())
