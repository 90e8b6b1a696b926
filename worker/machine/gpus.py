"""Which GPU each worker of this machine gets.

Without torch: CUDA must see its one device before torch is imported.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping

from worker.contract.errors import DeviceError


def visible_gpus() -> list[str]:
    """The GPUs of this machine as CUDA_VISIBLE_DEVICES names them; what it names already is kept."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu.strip() for gpu in named.split(",") if gpu.strip() not in ("", "-1")]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    listed = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)  # noqa: S603 (a list of words, no shell)
    return re.findall(r"^GPU (\d+):", listed.stdout, flags=re.MULTILINE) if listed.returncode == 0 else []


def choose_gpus(wanted: str, device: str) -> list[str | None]:
    """One entry for each worker: its GPU, or None for the CPU. Raises DeviceError.

    `wanted` is `all`, `none` or a list such as `0,1`; `device` is the setting of that name.
    """
    if wanted == "none" or (wanted == "all" and device == "cpu"):
        return [None]
    if wanted == "all":
        gpus = visible_gpus()
        if not gpus and device == "cuda":
            raise DeviceError(
                "DECONVOY_DEVICE=cuda is set, but no GPU is to be seen here: give this machine one, or set "
                "DECONVOY_DEVICE=auto"
            )
        return [*gpus] or [None]
    gpus = [gpu.strip() for gpu in wanted.split(",")]
    missing = [gpu for gpu in gpus if gpu not in visible_gpus()]
    if missing:
        have = ", ".join(visible_gpus()) or "none"
        raise DeviceError(f"GPU {missing[0]!r} is not on this machine (it has {have}): name one it has")
    return [*dict.fromkeys(gpus)]


def label_of(gpu: str | None) -> str:
    """What the worker on `gpu` is called in metrics and in its name."""
    return "cpu" if gpu is None else f"gpu{gpu}"


def environment_of(gpu: str | None, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of the worker on `gpu` (None: the CPU)."""
    environment = {**base, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    if gpu is None:
        return {**environment, "CUDA_VISIBLE_DEVICES": "", "DECONVOY_DEVICE": "cpu"}
    return {**environment, "CUDA_VISIBLE_DEVICES": gpu}
