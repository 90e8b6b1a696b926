"""How log lines look: text to read, or JSON, an object a line. Both name worker, job and shard."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal

Format = Literal["text", "json"]

# A process works on one shard at a time, and its threads all work on that one. So this is no context
# variable, which threads would not see.
_shard: tuple[str, int] | None = None


def begin_shard(job: str, shard: int) -> None:
    """From now on, lines of this process are about this shard of this job."""
    global _shard
    _shard = (job, shard)


def end_shard() -> None:
    """From now on, lines of this process are about no shard."""
    global _shard
    _shard = None


@contextmanager
def about_shard(job: str, shard: int) -> Iterator[None]:
    """Lines within the block are about this shard of this job."""
    global _shard
    before, _shard = _shard, (job, shard)
    try:
        yield
    finally:
        _shard = before


def formatter(log_format: Format, worker: str) -> logging.Formatter:
    """What turns the records of the process of `worker` into lines."""
    return JsonFormatter(worker) if log_format == "json" else TextFormatter(worker)


def leave_out_details_of_others() -> None:
    """Of these libraries DEBUG is no log of ours: botocore tells headers, a session's token among them;
    Celery prints source code that it makes for itself; Pillow names each piece of each image.
    """
    for name in ("botocore", "celery.utils.functional", "PIL", "s3transfer", "urllib3"):
        logging.getLogger(name).setLevel(logging.INFO)


def configure(log_format: Format, level: str, worker: str) -> None:
    """Write the lines of this process, its warnings and the exception that ends it to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(log_format, worker))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    leave_out_details_of_others()
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught


class TextFormatter(logging.Formatter):
    """`time LEVEL worker: job J shard N: message`, and below it an exception's traceback."""

    def __init__(self, worker: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)-7s {worker.replace('%', '%%')}: %(about)s%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line, or lines."""
        record.about = "" if _shard is None else f"job {_shard[0]} shard {_shard[1]}: "
        return super().format(record)


class JsonFormatter(logging.Formatter):
    """A JSON object: time, level, logger, worker, message; job, shard, exception where there are any."""

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "worker": self._worker,
            "message": record.getMessage(),
        }
        if _shard is not None:
            line["job"], line["shard"] = _shard
        if record.exc_info is not None and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger(__name__).critical("ended by %s", kind.__name__, exc_info=(kind, error, trace))
