"""Log lines: what stands in them, as text and as JSON."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from worker import logs

Lines = Callable[[], list[str]]


@pytest.fixture
def written() -> Iterator[Callable[[logs.Format], tuple[logging.Logger, Lines]]]:
    """A logger of the test's own that writes in the given format, and what gives its lines."""
    logger = logging.getLogger("tests.logs")
    logger.propagate = False

    def write(log_format: logs.Format) -> tuple[logging.Logger, Lines]:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logs.formatter(log_format, "gpu0@host"))
        logger.addHandler(handler)
        return logger, lambda: stream.getvalue().splitlines()

    yield write
    logger.handlers.clear()


Written = Callable[[logs.Format], tuple[logging.Logger, Lines]]


def test_a_json_line_says_when_who_and_what(written: Written) -> None:
    logger, lines = written("json")
    logger.warning("%d images", 3)

    [line] = map(json.loads, lines())
    time = datetime.fromisoformat(line.pop("time"))
    assert time.utcoffset() == timedelta(0)
    assert abs((datetime.now(UTC) - time).total_seconds()) < 60
    assert line == {
        "level": "WARNING",
        "logger": "tests.logs",
        "worker": "gpu0@host",
        "message": "3 images",
    }


def test_a_time_is_written_as_rfc_3339_in_utc() -> None:
    record = logging.makeLogRecord({"created": 1_700_000_000.25, "msg": "x"})

    line = json.loads(logs.formatter("json", "w").format(record))

    assert line["time"] == "2023-11-14T22:13:20.250Z"


@pytest.mark.parametrize("text", ["two\nlines", 'a "quoted" \\ word', "\x1b[31mred", "\u2028"])
def test_whatever_a_message_holds_it_is_one_json_line(written: Written, text: str) -> None:
    logger, lines = written("json")
    logger.error("%s", text)

    [line] = lines()
    assert json.loads(line)["message"] == text


def test_text_that_is_no_utf_8_is_one_json_line() -> None:
    # Formatted and not logged: pytest would hand what it captures to another process, as UTF-8.
    record = logging.makeLogRecord({"msg": "\udcff no UTF-8"})
    line = logs.formatter("json", "w").format(record)

    assert line.isascii()
    assert json.loads(line)["message"] == "\udcff no UTF-8"


def test_an_exception_stands_in_its_json_line(written: Written) -> None:
    logger, lines = written("json")
    try:
        raise ValueError("too\nbad")
    except ValueError:
        logger.exception("no luck")

    [line] = map(json.loads, lines())
    assert line["message"] == "no luck"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: too\nbad")


def test_within_a_shard_lines_name_job_and_shard_and_after_it_not(written: Written) -> None:
    logger, lines = written("json")
    logs.begin_shard("cats-1", 0)
    logger.warning("inside")
    with logs.about_shard("dogs-2", 7):
        logger.warning("another")
    logger.warning("inside again")
    logs.end_shard()
    logger.warning("outside")

    about = [(line.get("job"), line.get("shard")) for line in map(json.loads, lines())]
    assert about == [("cats-1", 0), ("dogs-2", 7), ("cats-1", 0), (None, None)]


def test_threads_that_work_for_a_shard_name_it_too(written: Written) -> None:
    logger, lines = written("json")
    go = threading.Event()

    def log() -> None:
        go.wait()
        logger.warning("from a thread that was there before")

    thread = threading.Thread(target=log)
    thread.start()
    with logs.about_shard("cats-1", 4):
        go.set()
        thread.join()

    assert [json.loads(line)["shard"] for line in lines()] == [4]


def test_text_names_worker_job_and_shard_once(written: Written) -> None:
    logger, lines = written("text")
    with logs.about_shard("cats-1", 4):
        logger.warning("3 images")
    logger.warning("100% idle")

    first, second = lines()
    assert first.endswith(" WARNING gpu0@host: job cats-1 shard 4: 3 images")
    assert second.endswith(" WARNING gpu0@host: 100% idle")


def test_warnings_and_what_ends_a_process_are_lines_too() -> None:
    program = (
        "import warnings; from worker import logs; logs.configure('json', 'INFO', 'w');"
        "warnings.warn('odd'); raise RuntimeError('the end')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    warning, error = map(json.loads, ended.stderr.splitlines())
    assert ended.returncode == 1
    assert (warning["level"], "odd" in warning["message"]) == ("WARNING", True)
    assert (error["level"], error["message"]) == ("CRITICAL", "ended by RuntimeError")
    assert error["exception"].endswith("RuntimeError: the end")
