"""Workers that go one step at a time, so that a test decides what happens between any two of their steps.

Each is a thread in which the product's own Runtime works on a message; it stops at the gates that the store
and the deliveries have for it. One thread runs at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.memory_store import MemoryStore
from tests.unit.standin import StandInEngine
from worker.contract import keys
from worker.contract.errors import DeconvoyError
from worker.contract.jobs import Request, ShardMessage
from worker.fleet.deliveries import Deliveries, History
from worker.runtime import Runtime

_STEP_TIMEOUT_S = 60


class Killed(BaseException):
    """The process is gone: raised where it stood, and nothing is cleaned up in Redis."""


class SteppedWorker(threading.Thread):
    """One delivery of one message. `where` is the gate that it stands at, or `ended` or `dead`."""

    def __init__(self, work: Callable[[object], bool], tag: str, body: object) -> None:
        super().__init__(name=f"stepped-{tag}")
        self.tag = tag
        self.message = ShardMessage.from_body(body)
        self.where = "start"
        self.position = 0
        self.careful = False
        self.saw_cancelled: bool | None = None
        self._work = work
        self._body = body
        self._doomed = False
        self._error: BaseException | None = None
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self.start()

    @property
    def alive(self) -> bool:
        """Whether it has steps to go."""
        return self.where not in ("ended", "dead")

    def step(self) -> None:
        """Let it go to its next gate, or to its end."""
        self._go.release()
        assert self._stopped.acquire(timeout=_STEP_TIMEOUT_S), f"stuck behind {self.where}"
        if self._error is not None:
            raise self._error

    def kill(self) -> None:
        """Let it die where it stands."""
        if self.alive:
            self._doomed = True
            self.step()
        self.where = "dead"

    def stop_at(self, gate: str) -> None:
        """Called in the worker's own thread."""
        self.where = gate
        self._stopped.release()
        self._go.acquire()
        if self._doomed:
            raise Killed

    @property
    def doomed(self) -> bool:
        """Whether it dies just now."""
        return self._doomed

    def run(self) -> None:
        """All of the work."""
        self._go.acquire()
        try:
            if self._doomed:
                raise Killed
            assert self._work(self._body), "given back, though the store answers"
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 (raised again by `step`)
            self._error = error
        self.where = "ended"
        self._stopped.release()


def _worker() -> SteppedWorker | None:
    thread = threading.current_thread()
    return thread if isinstance(thread, SteppedWorker) else None


class SteppedDeliveries(Deliveries):
    """The product's deliveries, each under its worker's name; who dies says nothing."""

    def begin(self, job: str, shard: int) -> History:
        worker = _worker()
        assert worker is not None
        self._worker = worker.tag
        history = super().begin(job, shard)
        worker.careful = history.careful
        return history

    def on_image(self, job: str, shard: int, position: int | None) -> None:
        super().on_image(job, shard, position)
        worker = _worker()
        if worker is not None and position is not None:
            worker.position = position
            worker.stop_at("image")

    def end(self, job: str, shard: int) -> None:
        worker = _worker()
        assert worker is not None
        if not worker.doomed:
            super().end(job, shard)


class SteppedRuntime(Runtime):
    """The product's runtime with the stand-in's network. No shard of these tests may fail as a whole."""

    def replace_deliveries(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries

    def record_failure(self, message: ShardMessage, error: DeconvoyError) -> None:
        raise AssertionError(f"{message}: {error}")

    def _engine_for(self, request: Request) -> Any:  # noqa: ARG002 (there is one)
        return StandInEngine()

    def _certify(self, store: object, engine: object) -> None:
        """The stand-in has no pools, which a certificate is about."""


class GatedStore(MemoryStore):
    """A memory store at whose doors workers stop; `on_commit` is told of each record, which then stays."""

    def __init__(self, place: str, on_commit: Callable[[str, bytes], None]) -> None:
        super().__init__()
        self._place = place
        self._on_commit = on_commit
        self.records: dict[str, bytes] = {}

    @property
    def place(self) -> str:
        return self._place

    def read(self, key: str) -> bytes:
        worker = _worker()
        if worker is not None and key == keys.JOB:
            worker.stop_at("job")
        if worker is not None and key.startswith("manifest/"):
            assert worker.saw_cancelled is False, "a shard of a cancelled job is begun"
        return super().read(key)

    def exists(self, key: str) -> bool:
        found = super().exists(key)
        worker = _worker()
        if worker is not None and key == keys.CANCELLED:
            worker.saw_cancelled = found
            worker.stop_at("asked")
        return found

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        worker = _worker()
        is_record = key.endswith(".parquet") and key != keys.INDEX
        if worker is not None and (is_record or key == keys.REPORT):
            worker.stop_at("record" if is_record else "page")
        written = super().write(key, data, if_absent=if_absent)
        if is_record and written:
            assert key not in self.records, "a record is replaced"
            self.records[key] = data
            self._on_commit(key, data)
        if is_record and worker is not None:
            worker.stop_at("recorded")
        return written

    def write_file(self, key: str, path: Path) -> None:
        worker = _worker()
        if worker is not None and key == keys.INDEX:
            worker.stop_at("index")
        super().write_file(key, path)
