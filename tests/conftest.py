"""S3 for all tests: one server for the session, a fresh bucket for each test."""

from __future__ import annotations

import os
import uuid
from collections import defaultdict
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.s3_server import UseS3, environment_for, moto_server
from worker.storage import retries

PILLOWS_OWN_LIMIT = Image.MAX_IMAGE_PIXELS


def pytest_configure() -> None:
    """Threads of torch that wait for each other sleep: beside other tests they would take three times the
    processor's time by turning in a circle. Before torch is loaded, which reads this once.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(autouse=True)
def pillows_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's limit on pixels is global and set by each decoding, also by that of a longer fixture: no test
    finds that of another.
    """
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", PILLOWS_OWN_LIMIT)


@pytest.fixture(scope="session")
def lasting_endpoints() -> set[str]:
    """Servers that outlive a test: their clients, which take long to make, do so too."""
    return set()


@pytest.fixture(scope="session")
def s3_endpoint(lasting_endpoints: set[str]) -> Iterator[str]:
    """The URL of the session's S3 server."""
    with moto_server() as endpoint_url:
        lasting_endpoints.add(endpoint_url)
        yield endpoint_url


@pytest.fixture
def use_s3(monkeypatch: pytest.MonkeyPatch, lasting_endpoints: set[str]) -> Iterator[UseS3]:
    """Makes a server the one of `s3://`: sets the variables, and gives them for other processes."""

    def use(endpoint_url: str) -> dict[str, str]:
        environment = environment_for(endpoint_url)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        return environment

    yield use
    from worker.storage import client

    # Connections left open would be warned of when they are collected.
    for key, opened in [*client._clients.items()]:
        opened.close()
        if not lasting_endpoints.intersection(key):
            del client._clients[key]


@pytest.fixture
def s3_environment(s3_endpoint: str, use_s3: UseS3) -> dict[str, str]:
    """The variables that lead to the session's server: set here, and given for other processes."""
    return use_s3(s3_endpoint)


@pytest.fixture
def s3_bucket(s3_environment: dict[str, str]) -> str:
    """The name of an empty bucket."""
    from worker.storage.client import s3_client

    name = f"bucket-{uuid.uuid4().hex}"
    s3_client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 is asked again after a tenth of the usual pause, and just as often."""
    usual_s = retries.pause_s
    monkeypatch.setattr(retries, "pause_s", lambda attempt: usual_s(attempt) / 10)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Names of tests go between processes as UTF-8: a text that is none is named by its escapes."""
    return ascii(val) if isinstance(val, str) and not val.isprintable() else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Add up the seconds of each folder's tests, their fixtures included."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if isinstance(report, pytest.TestReport):
            seconds[report.nodeid.split("/")[1]] += report.duration
    if seconds:
        told = ", ".join(f"{folder} {total:.0f}" for folder, total in sorted(seconds.items()))
        terminalreporter.write_line(f"seconds of tests: {told}")
