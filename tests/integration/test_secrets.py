"""A job over S3 whose secrets are known: they stand nowhere in what it says and leaves; links expire."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.cluster import Deconvoy, start_redis, wait_until
from tests.secrecy import PASSWORD, check_no_secret
from worker.storage import open_store

pytestmark = pytest.mark.integration

S3_TOKEN = "t0ken/Of+a+session=="  # noqa: S105 (of a server that ends with the test)
S3_SECRET = "s3cret/Key+0123456789"  # noqa: S105 (of a server that ends with the test)


def test_secrets_stand_nowhere_and_links_are_short_lived(
    deconvoy: Deconvoy, short_folder: Path, s3_environment: dict[str, str], s3_bucket: str, photos: Path
) -> None:
    server = start_redis(short_folder, "--requirepass", PASSWORD)
    url = f"unix://:{quote(PASSWORD, safe='')}@{short_folder / 'redis.sock'}"
    environment = {
        **s3_environment,
        "AWS_SECRET_ACCESS_KEY": S3_SECRET,
        "AWS_SESSION_TOKEN": S3_TOKEN,
        "DECONVOY_REDIS_URL": url,
        "DECONVOY_LOG_LEVEL": "DEBUG",
    }
    log = short_folder / "worker.log"
    said = []
    try:
        with deconvoy.logging(log, "worker", "--gpus", "none", **environment):
            network = ("--weights", "random:0", "--model", "vgg11")
            options = (*network, "--size", "32", "--spec", "pool1:max", "--json")
            out = f"s3://{s3_bucket}/jobs"
            submitted = deconvoy("submit", str(photos), "--out", out, *options, **environment)
            job = json.loads(submitted.stdout)["id"]
            store = open_store(f"{out}/{job}")
            wait_until(lambda: store.exists("report/index.html"), "the job is finished")
            commands: list[tuple[str, ...]] = [("status", job, "--json"), ("jobs",), ("links", job)]
            commands.append(("links", job, "--expires", "60"))
            ended = [deconvoy(*command, **environment) for command in commands]
            ended.append(deconvoy("doctor", "--out", out, **environment))
            said += [process.stdout + process.stderr for process in (submitted, *ended)]
            # Wrong ones too: the error must not tell them.
            wrong = {**environment, "DECONVOY_REDIS_URL": url.replace("unix:", "unx:")}
            said.append(deconvoy("jobs", **wrong).stderr)
            said.append(deconvoy("jobs", **{**environment, "DECONVOY_REDIS_URL": url + "0"}).stderr)
    finally:
        server.terminate()
        server.wait()
    check_links(ended[2], 3600)
    check_links(ended[3], 60)
    said.append(log.read_text())
    assert "is finished" in said[-1]
    assert " DEBUG " in said[-1]
    # Links carry it, for S3 asks for it; they are secrets themselves.
    left = [store.read(key) for key in store.list("")]
    check_no_secret([S3_TOKEN], [said[-1], submitted.stdout, submitted.stderr], left)
    check_no_secret([PASSWORD, S3_SECRET], said, left)


def check_links(ended: subprocess.CompletedProcess[str], expires_s: int) -> None:
    """All links hold for so long, and carry a signature instead of the secret."""
    links = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(links) == 4
    for link in links:
        query = parse_qs(urlsplit(link.get("url") or link["report"]).query)
        assert query["X-Amz-Expires"] == [str(expires_s)]
        assert query["X-Amz-Signature"]


@pytest.mark.parametrize("expires", ["0", "-1", str(7 * 24 * 3600 + 1), "x"])
def test_a_link_cannot_hold_for_longer_than_a_week(deconvoy: Deconvoy, tmp_path: Path, expires: str) -> None:
    ended = deconvoy("links", str(tmp_path), "--expires", expires)
    assert ended.returncode == 2
    assert "--expires" in ended.stderr
