"""Finished jobs to take pictures out of, in a folder and in a bucket, and what a user types to do so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.cluster import TIMEOUT_S
from tests.unit.shards import SMALL, run
from tests.unit.standin import make_job, noise_images
from worker.contract import keys, records
from worker.contract.jobs import Job, Layout, Request
from worker.pipeline.index import compact
from worker.storage import Store

Rows = list[dict[str, Any]]

SPECS = ("pool1:max", "pool2:all", "pool3:top:3")
N_IMAGES = 5
N_ROWS = N_IMAGES * 5
REPORT = b"<!doctype html><title>page</title>"


def computed_job(
    store: Store,
    images: Path,
    layout: Layout,
    *,
    shards: Sequence[int] = (0, 1, 2),
    also: Sequence[str] = (),
) -> Job:
    """A job of five images, and of those in `also`, with these of its shards done; all: it is finished."""
    images.mkdir(exist_ok=True)
    request = Request(specs=SPECS, preprocessing=SMALL, layout=layout)
    sources = [*map(str, noise_images(images, [(40, 40)] * N_IMAGES)), *also]
    job = make_job(store, sources, request, shard_size=2)
    store.write(keys.JOB, job.to_json())
    for shard in shards:
        run(store, job, shard=shard)
    if len(shards) == job.n_shards:
        compact(store, job)
        store.write(keys.REPORT, REPORT)
    return job


def deconvoy(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line; of this machine's environment it gets what leads to the test's S3 server."""
    return subprocess.run(
        command(*arguments),
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "producer.cli", *arguments]


def clean_environment(**environment: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "DECONVOY_S3_"))}
    return {"PATH": "/usr/bin:/bin", **kept, **environment}


def index_of(store: Store) -> Rows:
    rows: Rows = records.from_parquet(store.read(keys.INDEX), keys.INDEX).to_pylist()
    return rows


def spoil(store: Store, column: str, value: object) -> None:
    """Give the five rows of the job's first image this value."""
    rows = index_of(store)
    for row in rows:
        if row["image"] == rows[0]["image"]:
            row[column] = value
    store.write(keys.INDEX, records.to_parquet(pa.Table.from_pylist(rows, schema=records.SCHEMA)))
