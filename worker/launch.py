"""`python -m worker.launch`: one Celery worker for each GPU of this machine, or one on the CPU.

Without torch: CUDA must see its one device before torch is imported.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from types import FrameType

from worker.contract.errors import ComponentError, DeconvoyError, DeviceError, SettingsError
from worker.contract.settings import load_settings

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
_POLL_S = 0.1
_KILL_AFTER_S = 10
"""Seconds beyond `DECONVOY_SHUTDOWN_S` after which a worker that does not end is killed."""


def visible_gpus() -> list[str]:
    """The GPUs of this machine as CUDA_VISIBLE_DEVICES names them; what it names already is kept."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu.strip() for gpu in named.split(",") if gpu.strip() not in ("", "-1")]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    listed = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)  # noqa: S603
    return re.findall(r"^GPU (\d+):", listed.stdout, flags=re.MULTILINE) if listed.returncode == 0 else []


def choose_gpus(wanted: str, device: str) -> list[str | None]:
    """One entry for each worker: its GPU, or None for the CPU. Raises DeviceError.

    `wanted` is `all`, `none` or a list such as `0,1`; `device` is the setting of that name.
    """
    if wanted == "none" or (wanted == "all" and device == "cpu"):
        return [None]
    if wanted == "all":
        return [*visible_gpus()] or [None]
    gpus = [gpu.strip() for gpu in wanted.split(",")]
    missing = [gpu for gpu in gpus if gpu not in visible_gpus()]
    if missing:
        have = ", ".join(visible_gpus()) or "none"
        raise DeviceError(f"GPU {missing[0]!r} is not on this machine (it has {have}): name one it has")
    return [*dict.fromkeys(gpus)]


def environment_of(gpu: str | None, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of the worker on `gpu` (None: the CPU)."""
    environment = {**base, "REMAP_SIGTERM": "SIGQUIT", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    if gpu is None:
        return {**environment, "CUDA_VISIBLE_DEVICES": "", "DECONVOY_DEVICE": "cpu"}
    return {**environment, "CUDA_VISIBLE_DEVICES": gpu}


def launch(gpus: list[str | None], shutdown_s: int) -> int:
    """Start the workers and wait for them; a signal that ends this process ends them first.

    One that ends by itself ends the others too, so that a supervisor sees it. Returns the exit code.
    """
    told_to_end: list[int] = []

    def on_signal(signum: int, _frame: FrameType | None) -> None:
        told_to_end.append(signum)

    for signum in _ENDING:
        signal.signal(signum, on_signal)
    children = [_start(gpu) for gpu in gpus]
    while not told_to_end and all(child.poll() is None for child in children):
        time.sleep(_POLL_S)
    codes = [child.poll() for child in children]
    _end(children, shutdown_s + _KILL_AFTER_S)
    if told_to_end:
        return 0
    ended_first = next((code for code in codes if code is not None), 1)
    return 128 - ended_first if ended_first < 0 else ended_first or 1


def _start(gpu: str | None) -> subprocess.Popen[bytes]:
    label = "cpu" if gpu is None else f"gpu{gpu}"
    hostname = f"deconvoy-{label}-{os.getpid()}@{socket.gethostname()}"
    # -P: a folder named `worker` where the user stands must not be taken for ours.
    command = [sys.executable, "-P", "-m", "worker.app", hostname]
    return subprocess.Popen(command, env=environment_of(gpu, os.environ), stdin=subprocess.DEVNULL)  # noqa: S603


def _end(children: list[subprocess.Popen[bytes]], timeout_s: float) -> None:
    for child in children:
        # Also after Ctrl-C, which the terminal has sent to them already: both mean "stop soon".
        child.terminate()
    deadline = time.monotonic() + timeout_s
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def main() -> int:
    """The command line of a machine's workers. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="deconvoy worker", description="Workers of this machine.")
    parser.add_argument("--gpus", default="all", help="all, none, or numbers such as 0,1")
    wanted: str = parser.parse_args().gpus
    try:
        settings = load_settings()
        if settings.redis_url is None:
            raise SettingsError("DECONVOY_REDIS_URL is not set: name the Redis that holds the queue")
        if importlib.util.find_spec("torch") is None:
            raise ComponentError("torch is not installed here: pip install 'deconvoy[worker]'")
        gpus = choose_gpus(wanted, settings.device)
    except DeconvoyError as error:
        sys.stderr.write(f"deconvoy: {error}\n")
        return error.exit_code
    return launch(gpus, settings.shutdown_s)


if __name__ == "__main__":
    sys.exit(main())
