"""A request to S3 is made as often as the settings say, whatever other requests fail beside it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import SSLError

from tests.fault_proxy import Fault, FaultProxy, Rule
from worker.contract.errors import StorageError, StorageUnavailable
from worker.storage import open_store
from worker.storage.client import s3_client
from worker.storage.retries import Retries, pause_s

ATTEMPTS = 3
N_THREADS = 16
N_OBJECTS = 64


@pytest.fixture
def proxy(
    s3_endpoint: str, s3_bucket: str, short_pauses: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultProxy]:
    with FaultProxy(s3_endpoint) as running, monkeypatch.context() as environment:
        environment.setenv("DECONVOY_S3_ENDPOINT_URL", running.url)
        environment.setenv("DECONVOY_S3_MAX_ATTEMPTS", str(ATTEMPTS))
        yield running
        s3_client().close()


@pytest.mark.parametrize("fault", ["503", "reset"])
def test_of_many_requests_that_fail_together_each_gets_all_its_attempts(
    proxy: FaultProxy, s3_bucket: str, fault: Fault
) -> None:
    store = open_store(f"s3://{s3_bucket}")
    proxy.inject(Rule(fault, method="PUT", times=ATTEMPTS - 1))
    with ThreadPoolExecutor(N_THREADS) as threads:
        done = list(threads.map(lambda number: store.write(str(number), b"data"), range(N_OBJECTS)))
    assert done == [True] * N_OBJECTS
    assert proxy.faults[fault] == N_OBJECTS * (ATTEMPTS - 1)


@pytest.mark.parametrize("fault", ["500", "503", "reset"])
def test_what_fails_for_good_is_given_up_after_the_last_attempt(
    proxy: FaultProxy, s3_bucket: str, fault: Fault
) -> None:
    store = open_store(f"s3://{s3_bucket}")
    proxy.inject(Rule(fault, key="/a$"))
    for n_asked in (ATTEMPTS, 2 * ATTEMPTS):
        with pytest.raises(StorageUnavailable):
            store.write("a", b"data")
        assert proxy.requests["PUT", f"{s3_bucket}/a"] == n_asked


@pytest.mark.parametrize("fault", ["403", "404"])
def test_what_will_not_pass_is_not_asked_again(proxy: FaultProxy, s3_bucket: str, fault: Fault) -> None:
    store = open_store(f"s3://{s3_bucket}")
    proxy.inject(Rule(fault))
    with pytest.raises(StorageError):
        store.write("a", b"data")
    assert proxy.requests["PUT", f"{s3_bucket}/a"] == 1


def test_a_certificate_that_cannot_be_verified_is_not_asked_for_again() -> None:
    error = SSLError(endpoint_url="https://s3", error="[SSL: CERTIFICATE_VERIFY_FAILED]")
    assert Retries(8)(attempts=1, response=None, caught_exception=error) is None
    error = SSLError(endpoint_url="https://s3", error="[SSL: UNEXPECTED_EOF_WHILE_READING]")
    assert Retries(8)(attempts=1, response=None, caught_exception=error) is not None


def test_pauses_grow_to_twenty_seconds_and_differ() -> None:
    longest = {attempt: max(pause_s(attempt) for _ in range(500)) for attempt in range(1, 10)}
    for attempt, expected in enumerate((0.5, 1, 2, 4, 8, 16, 20, 20, 20), start=1):
        assert 0.9 * expected < longest[attempt] <= expected
    assert min(pause_s(9) for _ in range(500)) < 2
