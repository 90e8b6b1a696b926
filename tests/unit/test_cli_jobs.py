"""`status`, `jobs`, `cancel` and `resume` as programs, on a job that stands in a folder; no Redis."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.results.made import computed_job, deconvoy
from worker.contract import keys
from worker.contract.jobs import Job
from worker.contract.stages import STAGES
from worker.storage import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "out" / "job-1")


@pytest.fixture
def finished(store: Store, tmp_path: Path) -> Job:
    """Five images, and one that is missing."""
    return computed_job(store, tmp_path / "images", "files", also=[str(tmp_path / "gone.png")])


def test_the_status_of_a_finished_job_as_json(store: Store, finished: Job) -> None:
    ended = deconvoy("status", store.place, "--json")
    assert ended.returncode == 3, ended.stderr
    status = json.loads(ended.stdout)
    assert (status["id"], status["place"], status["state"]) == (finished.id, store.place, "finished")
    assert (status["n_images"], status["n_done"], status["n_failed"]) == (6, 6, 1)
    assert (status["n_shards"], status["n_shards_done"], status["attempt"]) == (3, 3, 0)
    assert status["report"] == f"{store.place}/{keys.REPORT}"
    summary = json.loads(store.read(keys.SUMMARY))
    for name in ("stages", "slowest_stage", "resources"):
        assert status[name] == summary[name]
    assert set(status["stages"]) <= set(STAGES)
    assert status["resources"]["peak_rss_bytes"] > 1_000_000


def test_the_status_of_a_finished_job_as_text(store: Store, finished: Job) -> None:
    lines = deconvoy("status", store.place).stdout.splitlines()
    slowest = json.loads(store.read(keys.SUMMARY))["slowest_stage"]
    assert lines[:5] == [
        "job     job-1",
        f"place   {store.place}",
        "state   finished",
        "images  6 of 6, 1 failed",
        "shards  3 of 3",
    ]
    assert lines[5].startswith(f"slowest {slowest}, ")
    assert lines[6:] == [f"page    {store.place}/{keys.REPORT}"]


def test_the_status_of_a_job_that_is_half_done(store: Store, tmp_path: Path) -> None:
    computed_job(store, tmp_path / "images", "files", shards=[1])
    ended = deconvoy("status", store.place, "--json")
    status = json.loads(ended.stdout)
    assert ended.returncode == 0
    assert (status["state"], status["n_done"], status["n_shards_done"]) == ("unfinished", 2, 1)
    assert (status["report"], status["live"], status["stages"]) == (None, False, {})


def test_cancel_and_resume_by_place(store: Store, tmp_path: Path) -> None:
    computed_job(store, tmp_path / "images", "files", shards=[1])
    cancelled = deconvoy("cancel", store.place)
    assert (cancelled.returncode, cancelled.stdout) == (0, "")
    assert "deconvoy resume goes on with it" in cancelled.stderr
    assert store.exists(keys.CANCELLED)
    status = deconvoy("status", store.place)
    assert status.returncode == 1
    assert "state   cancelled" in status.stdout
    resumed = deconvoy("resume", store.place)
    assert resumed.returncode != 0
    assert "DECONVOY_REDIS_URL" in resumed.stderr
    assert not store.exists(keys.CANCELLED)


def test_only_a_finished_job_is_resumed_for_what_failed(store: Store, tmp_path: Path) -> None:
    computed_job(store, tmp_path / "images", "files", shards=[1])
    ended = deconvoy("resume", store.place, "--failed")
    assert ended.returncode != 0
    assert ended.stderr == "deconvoy: job job-1 is not finished: resume it without --failed, then try again\n"


def test_an_attempt_at_what_failed_shows_in_the_status(store: Store, finished: Job) -> None:
    assert "DECONVOY_REDIS_URL" in deconvoy("resume", store.place, "--failed").stderr
    assert "state   unfinished, attempt 2" in deconvoy("status", store.place).stdout


def test_the_jobs_of_a_place_by_name(store: Store, finished: Job, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert deconvoy("jobs", out).stdout == f"job-1  {store.place}\n"
    assert json.loads(deconvoy("jobs", out, "--json").stdout) == {"job-1": store.place}
    assert deconvoy("jobs", str(tmp_path / "nothing")).stdout == ""
    without = deconvoy("jobs")
    assert without.returncode != 0
    assert "DECONVOY_REDIS_URL" in without.stderr


@pytest.mark.parametrize("command", ["status", "cancel", "resume"])
def test_a_job_that_is_not_there_is_named(command: str, tmp_path: Path) -> None:
    ended = deconvoy(command, str(tmp_path / "no-such"))
    assert ended.returncode != 0
    assert "there is no job" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
