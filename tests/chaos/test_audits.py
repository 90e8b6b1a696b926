"""An audit whose workers are killed, against one that a single process makes undisturbed."""

from __future__ import annotations

from pathlib import Path

import pytest

from producer.audits import audit
from tests.chaos.convoy import SHARD_SIZE, Convoy
from tests.unit.audits import make_audit, run_whole
from worker.contract import keys
from worker.contract.audits import AuditOptions
from worker.contract.jobs import Preprocessing, read_manifest
from worker.deconv import Deconvnet

pytestmark = [pytest.mark.chaos, pytest.mark.integration]

TOP = 3
SIZE_PX = 32


def test_an_audit_whose_workers_are_killed_says_what_one_process_says(
    convoy: Convoy, name: str, tmp_path: Path
) -> None:
    before = len(convoy.projected())
    worker = convoy.the_worker()
    handle = audit(
        f"s3://{convoy.bucket}/photos",
        out=f"s3://{convoy.bucket}/audits",
        settings=convoy.settings,
        name=name,
        layers=["pool1"],
        top=TOP,
        weights="random:0",
        size_px=SIZE_PX,
        shard_size=SHARD_SIZE,
        batch_size=1,
    )
    convoy.wait_for_images(SHARD_SIZE // 2, before)
    assert worker.kill_computing()
    convoy.wait_for_images(2 * SHARD_SIZE, before)
    worker.kill_all()
    second = convoy.start_worker()
    try:
        convoy.the_worker()
        assert handle.wait().n_failed == 0
    finally:
        second.end()

    images = [
        entry.image
        for shard in range(handle.job.n_shards)
        for entry in read_manifest(handle.store.read(keys.manifest_key(shard)), "manifest")
    ]
    store, job = make_audit(
        tmp_path / "undisturbed",
        images,
        AuditOptions(top=TOP),
        preprocessing=Preprocessing(size_px=SIZE_PX),
        shard_size=7,
    )
    run_whole(store, job, Deconvnet.load("random:0", device="cpu"))
    for table in (keys.STATISTICS, keys.UNITS, keys.ATLAS, keys.FINDINGS):
        assert handle.store.read(table) == store.read(table), table
    convoy.check_queue_is_empty(handle.id)
