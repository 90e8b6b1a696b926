"""A worker whose network is asleep: all of a real one but what happens to images between manifest and record.

`python -m tests.bench.simulated`. Celery, its two processes, leases, deliveries and counters are the
product's; no torch, so that many such workers find room on one machine. A shard takes as many seconds as its
images' names say.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypedDict

from worker import app, names
from worker.contract import keys
from worker.contract.jobs import Job, read_manifest
from worker.storage import Store


class Sleep(TypedDict):
    """A record: who has slept, and when, in seconds since 1970."""

    worker: str
    began: float
    ended: float


@dataclass(frozen=True)
class Assignment:
    shard: int
    attempt: int
    caution: None


@dataclass(frozen=True)
class Slept:
    n_images: int
    n_failed: int = 0
    committed: bool = True
    stages: dict[str, float] = field(default_factory=dict)
    resources: dict[str, int] = field(default_factory=lambda: {"peak_rss_bytes": 0})


def image_name(number: int, seconds: float) -> str:
    """An image that takes so long."""
    return f"/simulated/{number:06d}-takes-{seconds}.png"


def run_shard(
    store: Store,
    job: Job,
    assignment: Assignment,
    engine: object,
    limits: object,
    on_image: Callable[[int, int], None],
) -> Slept:
    """Sleep through a shard, and leave a record."""
    began = time.time()
    manifest = keys.manifest_key(assignment.shard)
    entries = read_manifest(store.read(manifest), manifest)
    for n_done, entry in enumerate(entries, start=1):
        time.sleep(float(Path(entry.image).stem.rpartition("-")[2]))
        on_image(n_done, 0)
    record = Sleep(worker=names.own_name(), began=began, ended=time.time())
    store.write(keys.shard_key(assignment.shard), json.dumps(record).encode(), if_absent=True)
    return Slept(len(entries), stages={"forward": record["ended"] - began})


def finish(store: Store, *_: object) -> None:
    """Put something where the page would stand."""
    store.write(keys.REPORT, b"")


def _module(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(members)
    return module


def stand_ins() -> dict[str, ModuleType]:
    """By name, what stands in the place of modules that take long to import or to compute."""
    load = SimpleNamespace(load=lambda *_, **__: SimpleNamespace(weights=SimpleNamespace(sha256="0" * 64)))
    certificate = SimpleNamespace(to_dict=dict)
    return {
        # Its GPU is asked for the memory in use.
        "torch": _module("torch", cuda=SimpleNamespace(is_initialized=lambda: False)),
        "worker.pipeline": _module(
            "worker.pipeline",
            Assignment=Assignment,
            Caution=None,
            Limits=SimpleNamespace,
            compact=lambda *_: None,
            run_atlas=None,
            run_scan=None,
            run_shard=run_shard,
        ),
        "worker.report": _module("worker.report", write_report=finish, write_audit_report=None),
        "worker.deconv": _module("worker.deconv", Deconvnet=load, certify=lambda _: certificate),
    }


# The process that Celery starts for the work imports this file under the second name.
if __name__ in ("__main__", "__mp_main__"):
    sys.modules.update(stand_ins())
if __name__ == "__main__":
    app.main()
