"""Finished jobs of five images, in a folder and in a bucket, in both layouts; and a folder to fetch into."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from tests.unit.results.made import computed_job
from worker.contract.jobs import Job, Layout
from worker.storage import Store, open_store


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(tmp_path / "job 1")
    return open_store(f"s3://{request.getfixturevalue('s3_bucket')}/jobs/job-1")


@pytest.fixture(params=get_args(Layout))
def layout(request: pytest.FixtureRequest) -> Layout:
    chosen: Layout = request.param
    return chosen


@pytest.fixture
def job(store: Store, tmp_path: Path, layout: Layout) -> Job:
    return computed_job(store, tmp_path / "images", layout)


@pytest.fixture
def target(tmp_path: Path) -> Store:
    return open_store(tmp_path / "dest")


@pytest.fixture
def pictures_in_s3(s3_bucket: str, tmp_path: Path) -> str:
    """The place of a finished job, a picture an object."""
    place = f"s3://{s3_bucket}/job-1"
    computed_job(open_store(place), tmp_path / "images", "files")
    return place
