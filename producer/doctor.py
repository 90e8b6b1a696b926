"""What works on this machine, and what to do about what does not. One line each."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from producer.broker import Broker
from producer.local import find_server
from producer.planning import resolve_weights
from worker.contract.architectures import DEFAULT_MODEL
from worker.contract.errors import ComponentError, DeconvoyError, StorageError
from worker.contract.settings import Settings, load_settings
from worker.storage import open_store

_TORCH_TIMEOUT_S = 120
_PROBE_KEY = ".deconvoy-doctor"


@dataclass(frozen=True)
class Finding:
    """One line: `subject`, whether it works, and what was found or what to do."""

    subject: str
    ok: bool
    text: str


def examine(out: str | None, weights: str | None, *, certify: bool = False) -> list[Finding]:
    """Check everything that can be checked here; `out` and `weights` where they are given.

    With `certify` and weights, also measure what `worker.deconv.certificate` describes.

    Raises SettingsError: without settings nothing else can be judged.
    """
    settings = load_settings()
    checks: list[tuple[str, Callable[[], str]]] = [
        ("server", find_server),
        ("redis", lambda: _check_redis(settings)),
        ("torch", _check_torch),
    ]
    if out is not None:
        checks.append(("store", lambda: _check_store(out)))
    if weights is not None:
        checks.append(("weights", lambda: _check_weights(weights)))
        if certify:
            checks.append(("certified", lambda: _certify(weights)))
    return [_finding(subject, check) for subject, check in checks]


def _finding(subject: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, True, check())
    except DeconvoyError as error:
        return Finding(subject, False, str(error))


def _check_redis(settings: Settings) -> str:
    if settings.redis_url is None:
        return "DECONVOY_REDIS_URL is not set: run starts its own; submit and worker need one"
    broker = Broker(settings.redis_url, settings.shard_time_limit_s)
    try:
        broker.ping()
    finally:
        broker.close()
    return "answers"


def _check_store(out: str) -> str:
    """Write and read one small object. It stays the same one, so that only one is ever left.

    Also whether a write on condition that nothing stands there leaves alone what does.
    """
    store = open_store(out)
    data = secrets.token_bytes(16)
    store.write(_PROBE_KEY, data)
    if store.read(_PROBE_KEY) != data:
        raise StorageError(f"{store.place} gives back other bytes than were written: use another folder")
    if store.write(_PROBE_KEY, data[::-1], if_absent=True):
        conditions = "it ignores conditional writes: of two workers on one shard the last to end stays"
    else:
        conditions = "it honours conditional writes"
    return f"{store.place} can be written and read; {conditions}"


def _check_weights(weights: str) -> str:
    ref = resolve_weights(weights)
    if ref.sha256 is None:
        return f"{ref.name}: the worker gets them, and their sha256 is recorded then"
    return f"{ref.name}: sha256 {ref.sha256[:12]}…"


def _certify(weights: str) -> str:
    numbers = _ask_worker("worker.certify", resolve_weights(weights).name, DEFAULT_MODEL, "fp32")
    return (
        f"{numbers['precision']} on {numbers['device']} ({numbers['processor']}), torch {numbers['torch']}: "
        f"zero in, zero out {numbers['zero_in_zero_out']:.1g}; "
        f"fast against slow {numbers['fast_against_slow']:.1e}; "
        f"windows against dense {numbers['windows_against_dense']:.1g}; "
        f"activations again {numbers['activation_again']:.1g}"
    )


def _check_torch() -> str:
    machine = _ask_worker("worker.machine.describe")
    gpus = ", ".join(machine["gpus"]) or f"no GPU, {machine['cpu_threads']} CPU threads"
    return f"{machine['torch']}, {gpus}"


def _ask_worker(module: str, *arguments: str) -> dict[str, Any]:
    """The JSON that a module of the worker prints, in a process of its own: torch stays out of this one."""
    command = [sys.executable, "-P", "-m", module, *arguments]
    try:
        ended = subprocess.run(  # noqa: S603 (a list of words, no shell)
            command, capture_output=True, text=True, timeout=_TORCH_TIMEOUT_S, check=True
        )
        answer: dict[str, Any] = json.loads(ended.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise ComponentError(
            f"the worker does not work here ({lines[-1] if lines else error}): pip install 'deconvoy[worker]'"
        ) from error
    return answer
