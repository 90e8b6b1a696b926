"""Links: what they lead to, in which order they come, and how long they hold."""

from __future__ import annotations

import hashlib
import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.unit.results.made import N_ROWS, REPORT, SPECS, clean_environment, command, computed_job, deconvoy
from worker.contract import keys, records
from worker.contract.jobs import Job
from worker.storage import Store, open_store

Links = list[dict[str, Any]]


def links(store: Store, *options: str) -> Links:
    ended = deconvoy("links", store.place, *options)
    assert (ended.returncode, ended.stderr) == (0, "")
    return [json.loads(line) for line in ended.stdout.splitlines()]


def opened(link: dict[str, Any]) -> bytes:
    """What a browser gets, or a client that asks for the bytes the link names."""
    request = urllib.request.Request(link["url"])  # noqa: S310 (our own server)
    offset, length = link.get("offset"), link.get("length")
    if offset is not None and not link["url"].startswith("file:"):
        request.add_header("Range", f"bytes={offset}-{offset + length - 1}")
    with urllib.request.urlopen(request) as answer:  # noqa: S310 (our own server)
        data: bytes = answer.read()
    return data[offset:][:length] if link["url"].startswith("file:") else data


def test_the_page_comes_first_and_each_link_gives_its_picture(store: Store, job: Job) -> None:
    page, *pictures = links(store)

    assert [*page] == ["report"]
    assert opened({"url": page["report"]}) == REPORT
    rows = records.from_parquet(store.read(keys.INDEX), keys.INDEX).to_pylist()
    assert [(link["image"], link["spec"], link["unit"]) for link in pictures] == [
        (row["image"], row["spec"], row["unit"]) for row in rows
    ]
    assert [hashlib.sha256(opened(link)).hexdigest() for link in pictures] == [row["sha256"] for row in rows]


def test_only_what_is_selected_is_linked(store: Store, job: Job) -> None:
    _, *pictures = links(store, "--spec", "4:max", "--image", "*3.png")

    assert [(Path(link["image"]).name, link["spec"]) for link in pictures] == [("noise0003.png", "pool1:max")]


def test_links_hold_for_an_hour_unless_told_otherwise(s3_bucket: str, tmp_path: Path) -> None:
    store = open_store(f"s3://{s3_bucket}/job-1")
    computed_job(store, tmp_path / "images", "files")

    def seconds(given: Links) -> set[str]:
        urls = [link.get("url") or link["report"] for link in given]
        return {second for url in urls for second in parse_qs(urlsplit(url).query)["X-Amz-Expires"]}

    assert seconds(links(store)) == {"3600"}
    assert seconds(links(store, "--expires", "600")) == {"600"}
    assert seconds(links(store, "--expires", str(7 * 24 * 3600))) == {str(7 * 24 * 3600)}


@pytest.mark.parametrize("expires", ["0", "-1", str(7 * 24 * 3600 + 1)])
def test_what_no_link_can_hold_for_is_refused(tmp_path: Path, expires: str) -> None:
    ended = deconvoy("links", str(tmp_path), "--expires", expires)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert "--expires" in ended.stderr


def test_rows_without_a_picture_and_a_missing_page_are_said(tmp_path: Path) -> None:
    store = open_store(tmp_path / "job-1")
    computed_job(store, tmp_path / "images", "files", shards=[0, 2], also=["/no/photo.png"])

    ended = deconvoy("links", store.place)

    assert ended.returncode == 0
    assert len(ended.stdout.splitlines()) == 3 * 5
    assert ended.stderr.splitlines() == [
        "job job-1 is unfinished: 2 of its 3 shards are done and are taken",
        "job job-1 has no page yet",
        f"{len(SPECS)} rows have no picture: their images failed",
    ]


def test_nothing_is_printed_if_nothing_is_selected(store: Store, job: Job) -> None:
    ended = deconvoy("links", store.place, "--image", "*.gif")

    assert (ended.returncode, ended.stdout) == (2, "")
    assert "no image that matches '*.gif'" in ended.stderr


def test_a_place_in_the_index_that_leads_out_of_the_job_gets_no_link(store: Store, job: Job) -> None:
    table = records.from_parquet(store.read(keys.INDEX), keys.INDEX)
    rows = table.to_pylist()
    rows[0]["key"] = "../other/secret"
    store.write(keys.INDEX, records.to_parquet(table.from_pylist(rows, schema=records.SCHEMA)))

    ended = deconvoy("links", store.place)

    assert ended.returncode == 1
    assert "secret" not in ended.stdout
    assert (
        ended.stderr
        == "deconvoy: key '../other/secret' is not allowed: use names between single slashes, no ..\n"
    )


def test_redis_is_not_needed(tmp_path: Path) -> None:
    store = open_store(tmp_path / "job-1")
    computed_job(store, tmp_path / "images", "tar")

    ended = deconvoy("links", store.place, DECONVOY_REDIS_URL="redis://127.0.0.1:1/0")

    assert (ended.returncode, len(ended.stdout.splitlines())) == (0, 1 + N_ROWS)


def test_a_reader_that_has_enough_leaves_no_traceback(tmp_path: Path) -> None:
    store = open_store(tmp_path / "job-1")
    computed_job(store, tmp_path / "images", "files")
    arguments = command("links", store.place)
    with subprocess.Popen(
        arguments, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()

    assert b"Traceback" not in said
