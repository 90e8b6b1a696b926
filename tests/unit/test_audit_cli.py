"""`audit`, `findings` and what other commands do with audits, on audits that stand in a folder; no Redis."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Unpack

import pyarrow as pa
import pytest

from producer.audits import AuditPlanOptions, audit, plan_audit
from producer.jobs import JobHandle, prepare
from producer.progress import Standing, standing_of_job
from producer.pruning import prune
from producer.status import read_status
from worker.contract import keys, records
from worker.contract.audit_tables import FINDINGS_SCHEMA
from worker.contract.audits import AuditOptions
from worker.contract.errors import JobError, SettingsError, SpecError, UsageError
from worker.contract.settings import Settings
from worker.storage.standing import Todo, is_complete, is_scanned, still_to_do

FINDINGS = [
    ("decode-fault", "error", "/photos/bad.png", None, "cut short"),
    ("drift", "warning", "pool1:3", 0.4, "its peaks are distributed otherwise"),
    ("dead-unit", "info", "pool1:7", None, "no image makes it fire"),
]


@pytest.fixture
def out(tmp_path: Path) -> str:
    return str(tmp_path / "out")


def prepared(photos: Path, out: str, **options: Unpack[AuditPlanOptions]) -> JobHandle:
    chosen: AuditPlanOptions = {
        "weights": "random:0",
        "shard_size": 2,
        "layers": ["pool1", "pool2"],
        **options,
    }
    return prepare([str(photos)], out, plan_audit([str(photos)], out, chosen), local=False)


def finish(handle: JobHandle) -> JobHandle:
    """Leave what a finished audit leaves, as far as the producer reads it."""
    table = pa.Table.from_pylist(
        [dict(zip(FINDINGS_SCHEMA.names, row, strict=True)) for row in FINDINGS], schema=FINDINGS_SCHEMA
    )
    summary = {"n_images": 5, "n_failed": 1, "stages": {}, "slowest_stage": None, "resources": {}}
    for shard in range(handle.job.n_shards + handle.job.n_atlas_shards):
        handle.store.write(keys.shard_key(shard), b"")
    for key, data in {
        keys.STATISTICS: b"",
        keys.FINDINGS: records.to_parquet(table),
        keys.UNITS: b"units",
        keys.atlas_key("pool1", 0, "patches"): b"webp",
        keys.plan_key(0): b"",
        keys.SUMMARY: json.dumps(summary).encode(),
        keys.FAILURES: b"",
        keys.SINGLE_PAGE: b"<!doctype html>",
        keys.REPORT: b"<!doctype html>",
    }.items():
        handle.store.write(key, data)
    return handle


def deconvoy(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "producer.cli", *arguments]
    return subprocess.run(command, env=os.environ, capture_output=True, text=True)


def test_an_audit_asks_for_the_strongest_activation_of_each_layer(photos: Path, out: str) -> None:
    handle = prepared(photos, out, layers=["9", "pool1", "4"], top=4)
    assert handle.job.request.specs == ("pool2:max", "pool1:max")
    assert handle.job.audit == AuditOptions(top=4)
    assert handle.id == f"my-cats-{handle.job.fingerprint[:10]}"
    assert (handle.job.n_shards, handle.job.n_atlas_shards) == (3, 3)
    default = plan_audit([], out, {"weights": "random:0"})
    assert default.request.specs == tuple(f"pool{block}:max" for block in range(1, 6))


def test_the_same_audit_is_found_and_another_is_another(photos: Path, out: str) -> None:
    handle = finish(prepared(photos, out))
    assert prepared(photos, out, shard_size=1).job == handle.job
    others: list[AuditPlanOptions] = [
        {"top": 3},
        {"layers": ["pool1"]},
        {"recompute": True},
        {"baseline": handle.place},
        {"size_px": 64},
    ]
    ids = {prepared(photos, out, **options).id for options in others}
    assert len({handle.id, *ids}) == 6


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"top": 0}, UsageError, "option top cannot be 0"),
        ({"top": 26}, UsageError, "option top cannot be 26"),
        ({"layers": ["pool6"]}, SpecError, "no layer 'pool6'"),
        ({"baseline": "/nowhere"}, JobError, "/nowhere is no finished audit"),
    ],
)
def test_what_cannot_be_audited_is_refused(
    photos: Path, out: str, options: AuditPlanOptions, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        prepared(photos, out, **options)
    assert not Path(out).exists()


def test_an_unfinished_audit_and_a_job_are_no_baseline(photos: Path, out: str) -> None:
    for place in (prepared(photos, out).place, str(photos)):
        with pytest.raises(JobError, match="is no finished audit: name the place of one"):
            prepared(photos, out, baseline=place)


def test_the_last_of_a_name_is_the_newest_finished_one_that_asks_the_same(photos: Path, out: str) -> None:
    def made(age_days: int, **options: Unpack[AuditPlanOptions]) -> JobHandle:
        handle = finish(prepared(photos, out, **options))
        created = datetime.now(UTC) - timedelta(days=age_days)
        handle.job = handle.job.model_copy(update={"created": created})
        handle.store.write(keys.JOB, handle.job.to_json())
        return handle

    assert _baseline(prepared(photos, out, baseline="last", top=9)) is None
    made(9, top=2)
    newest = made(5, top=3)
    made(7, top=4)
    made(1, layers=["pool1"])
    made(1, name="my-cats-too")
    prepared(photos, out, top=5)
    assert _baseline(prepared(photos, out, baseline="last")) == newest.place
    assert _baseline(prepared(photos, out, baseline="last", name="My Cats")) == newest.place
    assert _baseline(prepared(photos, out, baseline="last", name="dogs")) is None


def _baseline(handle: JobHandle) -> str | None:
    assert handle.job.audit is not None
    return handle.job.audit.baseline


def test_the_scan_is_to_do_first_and_then_the_atlas(photos: Path, out: str) -> None:
    handle = prepared(photos, out)
    job, store = handle.job, handle.store
    assert still_to_do(store, job) == Todo(0, [0, 1, 2], n_later=3)
    status = read_status(job, store, None)
    assert (status.n_shards, status.n_shards_done, status.n_done) == (6, 0, 0)
    for shard in (2, 0):
        store.write(keys.shard_key(shard), b"")
    assert not is_scanned(store, job)
    assert (handle.status().n_shards_done, handle.status().n_done) == (2, 3)
    assert standing_of_job(handle.status()) == Standing("images", 3, 5, 0)
    store.write(keys.shard_key(1), b"")
    assert is_scanned(store, job)
    assert not is_complete(store, job)
    assert still_to_do(store, job) == Todo(0, [3, 4, 5])
    assert (handle.status().n_shards_done, handle.status().n_done) == (3, 5)
    assert standing_of_job(handle.status()) == Standing("shards", 3, 6, 0)
    for shard in (3, 5):
        store.write(keys.shard_key(shard), b"")
    assert still_to_do(store, job) == Todo(0, [4])
    store.write(keys.shard_key(4), b"")
    assert is_complete(store, job)
    assert handle.status().state == "unfinished"
    finish(handle)
    assert (handle.status().state, handle.status().n_shards_done) == ("finished", 6)
    assert standing_of_job(handle.status()) == Standing("images", 5, 5, 1, ended=True)


def test_findings_are_printed_the_gravest_first_and_can_gate(photos: Path, out: str) -> None:
    place = finish(prepared(photos, out)).place
    ended = deconvoy("findings", place)
    assert ended.returncode == 0
    assert [line.split()[:2] for line in ended.stdout.splitlines()] == [
        ["error", "decode-fault"],
        ["warning", "drift"],
        ["info", "dead-unit"],
    ]
    assert ended.stdout.splitlines()[1].endswith("pool1:3: its peaks are distributed otherwise")
    rows = json.loads(deconvoy("findings", place, "--json", "--fail-on", "info").stdout)
    assert [tuple(row.values()) for row in rows] == FINDINGS
    assert [deconvoy("findings", place, "--fail-on", level).returncode for level in ("info", "error")] == [
        4,
        4,
    ]


def test_no_finding_is_as_grave(photos: Path, out: str) -> None:
    handle = finish(prepared(photos, out))
    handle.store.write(keys.FINDINGS, records.to_parquet(FINDINGS_SCHEMA.empty_table()))
    ended = deconvoy("findings", handle.place, "--fail-on", "info")
    assert (ended.returncode, ended.stdout) == (0, "")


def test_findings_of_what_has_none_are_an_error(photos: Path, out: str) -> None:
    unfinished = deconvoy("findings", prepared(photos, out).place)
    assert (unfinished.returncode, unfinished.stdout) == (1, "")
    assert "is not finished: wait until it is" in unfinished.stderr


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--fail-on", "error"], "--fail-on needs findings: add --local or --wait"),
        (["--local", "--wait"], "--local waits anyway"),
        (["--top", "26"], "--top"),
        (["--layer", "pool9"], "no layer 'pool9'"),
        ([], "DECONVOY_REDIS_URL is not set"),
    ],
)
def test_wrong_use_is_refused(photos: Path, out: str, options: list[str], reason: str) -> None:
    ended = deconvoy("audit", str(photos), "--out", out, "--weights", "random:0", *options)
    assert ended.returncode == 2
    assert reason in ended.stderr
    assert not Path(out).exists()


def test_an_audit_that_is_finished_is_told_of_at_once(photos: Path, out: str) -> None:
    handle = finish(prepared(photos, out))
    command = [
        "audit",
        str(photos),
        "--out",
        out,
        "--weights",
        "random:0",
        "--layer",
        "pool1",
        "--layer",
        "pool2",
    ]
    for options, code in (([], 3), (["--fail-on", "warning"], 4)):
        ended = deconvoy(*command, "--local", *options)
        assert ended.returncode == code, ended.stderr
        assert ended.stdout == f"{handle.report}\n"
        assert "findings: 1 error, 1 warning, 1 info" in ended.stderr
        assert ("drift" in ended.stderr) == bool(options)


def test_the_failed_images_of_an_audit_are_not_tried_alone(photos: Path, out: str) -> None:
    handle = finish(prepared(photos, out))
    ended = deconvoy("resume", handle.place, "--failed")
    assert ended.returncode == 2
    assert f"audit again with --baseline {handle.place}" in ended.stderr


def test_an_audit_is_fetched_whole_and_what_only_its_place_needs_stays(
    photos: Path, out: str, tmp_path: Path
) -> None:
    handle = prepared(photos, out)
    assert "is not finished" in deconvoy("fetch", handle.place, str(tmp_path / "copy")).stderr
    finish(handle)
    assert deconvoy("fetch", handle.place, str(tmp_path / "copy"), "--spec", "pool1:max").returncode == 2
    ended = deconvoy("fetch", handle.place, str(tmp_path / "copy"), "--json")
    assert ended.returncode == 0, ended.stderr
    copied = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*.*")}
    assert copied == {
        "report/index.html",
        "report/single.html",
        "atlas/pool1/unit-000-patches.webp",
        keys.STATISTICS,
        keys.UNITS,
        keys.FINDINGS,
        keys.FAILURES,
        keys.SUMMARY,
    }
    assert json.loads(ended.stdout)["fetched"] == 8


def test_links_lead_to_the_page_with_its_pictures_inside_and_to_the_tables(photos: Path, out: str) -> None:
    handle = finish(prepared(photos, out))
    lines = [json.loads(line) for line in deconvoy("links", handle.place).stdout.splitlines()]
    assert lines[0] == {"report": f"{Path(handle.place).as_uri()}/{keys.SINGLE_PAGE}"}
    assert [line["table"] for line in lines[1:]] == [keys.UNITS, keys.IMAGES, keys.ATLAS, keys.FINDINGS]


@pytest.fixture
def audits(photos: Path, out: str) -> list[JobHandle]:
    return [finish(prepared(photos, out, top=top)) for top in (1, 2, 3)]


def test_audits_that_are_not_to_be_kept_are_deleted_but_for_the_baseline(
    photos: Path, out: str, audits: list[JobHandle]
) -> None:
    current = prepared(photos, out, baseline=audits[1].place)
    prune(audits, current.job)
    assert [bool(list(handle.store.list(""))) for handle in audits] == [False, True, False]


def test_the_python_interface_asks_for_a_redis(photos: Path, out: str) -> None:
    with pytest.raises(SettingsError, match="DECONVOY_REDIS_URL"):
        audit(str(photos), out=out, settings=Settings(redis_url=None), weights="random:0")
