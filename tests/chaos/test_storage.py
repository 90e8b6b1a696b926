"""S3 that fails, hangs, cuts bodies short and is away, for pictures and records and for the images."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import S3_ATTEMPTS, Length, finish
from tests.chaos.convoy import Convoy, Outcome
from tests.cluster import wait_until
from tests.fault_proxy import Fault, Rule
from tests.length import at_length

pytestmark = [pytest.mark.chaos, pytest.mark.integration]


@at_length
def test_an_s3_that_fails_now_and_then(convoy: Convoy, undisturbed: Outcome, name: str) -> None:
    convoy.the_worker()
    handle = convoy.submit(name)
    faults: list[Fault] = ["500", "503", "hang", "cut_answer", "cut_request", "reset", "lost_answer"]
    for number, fault in enumerate(faults):
        key = rf"(photos|{name}.*/recon/.*)/{number:03d}"
        convoy.proxy.inject(Rule(fault, method="GET|PUT", key=key, times=1))
    convoy.proxy.inject(Rule("lost_answer", method="PUT", key=f"{name}.*/shards/000001", times=1))
    convoy.proxy.inject(Rule("503", method="PUT", key=f"{name}.*/shards/000002", times=S3_ATTEMPTS - 1))
    finish(convoy, handle, undisturbed)
    assert all(convoy.proxy.faults[fault] for fault in faults)


@at_length
def test_an_s3_that_is_away(convoy: Convoy, undisturbed: Outcome, name: str, length: Length) -> None:
    before = len(convoy.projected())
    worker = convoy.the_worker()
    handle = convoy.submit(name)
    convoy.wait_for_images(8, before)
    with convoy.proxy.down():
        assert handle.broker is not None
        broker = handle.broker
        wait_until(lambda: bool(broker.live(handle.id).notes), "the status says what is waited for")
        length.let_s3_be_away()
        [note, *_] = broker.live(handle.id).notes.values()
        assert note.startswith("waiting for the store: ")
        assert not broker.live(handle.id).errors
        assert broker.queued(handle.id)
    finish(convoy, handle, undisturbed)
    assert worker.launcher.poll() is None
    assert not broker.live(handle.id).notes
