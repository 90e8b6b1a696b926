"""Whatever stands in messages, job files, manifests, plans, retries, specs and the environment."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.inputs import TEXTS, VALUES, changed, damaged, fuzzing, lines, only_ours, texts_like
from tests.memory_store import MemoryStore
from tests.messages import body_of, envelope, listed, shard_message
from tests.unit.standin import make_job
from worker.contract.architectures import MODELS
from worker.contract.audits import AuditOptions, Winners, plan_bytes, read_plan
from worker.contract.errors import SettingsError
from worker.contract.jobs import (
    Job,
    ManifestEntry,
    Request,
    Retry,
    ShardMessage,
    manifest_bytes,
    read_manifest,
)
from worker.contract.queue import celery_url
from worker.contract.roots import check_image, check_place, parse_roots
from worker.contract.settings import Settings, load_settings
from worker.contract.specs import parse_spec, parse_specs
from worker.fleet.transport import check_message

# In short with `make test`, at length with `make chaos`.
pytestmark = pytest.mark.chaos

GOOD_MESSAGE = envelope(body_of(shard_message("/jobs/a-job")))
GOOD_MANIFEST = manifest_bytes([ManifestEntry(image="/photos/ä b.jpg", key="a-b-0123456789ab")])
GOOD_PLAN = plan_bytes([Winners(image="/a.jpg", key="a", sha256="0" * 64, winners=((1, 0, 0.5),))])
GOOD_JOB = json.loads(
    make_job(MemoryStore(), ["/a.jpg"], Request(), batch_size=4, audit=AuditOptions()).to_json()
)
VARIABLES = [f"DECONVOY_{name.upper()}" for name in Settings.model_fields]


@fuzzing
@given(changed(GOOD_MESSAGE))
def test_envelopes(message: object) -> None:
    only_ours(check_message, listed(message))


@fuzzing
@given(damaged(listed(GOOD_MESSAGE), b"[" * 10_000, b"\x80\x04\x95"))
def test_bytes_in_the_list(data: bytes) -> None:
    only_ours(check_message, data)


@fuzzing
@given(changed(json.loads(body_of(shard_message("/jobs/a-job")))))
def test_bodies_of_tasks(body: object) -> None:
    only_ours(check_message, listed(envelope(json.dumps(body).encode())))


@fuzzing
@given(changed(shard_message("/jobs/a-job")))
def test_messages(body: object) -> None:
    message = only_ours(ShardMessage.from_body, body)
    if message is not None:
        # What is taken can be a key in Redis and part of a log line.
        assert message.job.isascii()
        assert message.place.replace(" ", "").strip()[:1] or message.place.isspace()
        assert ShardMessage.from_body(message.model_dump(mode="json")) == message


@fuzzing
@given(changed(GOOD_JOB))
def test_job_files(job: object) -> None:
    check_job(json.dumps(job).encode())


@fuzzing
@given(damaged(json.dumps(GOOD_JOB).encode()))
def test_bytes_of_job_files(data: bytes) -> None:
    check_job(data)


def check_job(data: bytes) -> None:
    job = only_ours(Job.from_json, data, "/jobs/a-job")
    if job is not None:
        only_ours(lambda: (job.layers, job.n_atlas_shards))
        assert Job.from_json(job.to_json(), "again") == job


@fuzzing
@given(st.one_of(damaged(Retry(attempt=1, shards=(1, 2)).to_json()), VALUES.map(listed)))
def test_retry_files(data: bytes) -> None:
    only_ours(Retry.from_json, data, "retries/001.json")


@fuzzing
@given(lines(GOOD_MANIFEST, b"{}", b"\xff", b"[" * 3000))
def test_slices_of_manifests(data: bytes) -> None:
    only_ours(read_manifest, data, "manifest/000000.jsonl")


@fuzzing
@given(lines(GOOD_PLAN, b"{}", b"null"))
def test_plans(data: bytes) -> None:
    only_ours(read_plan, data, "atlas/plan/000000.jsonl")


@fuzzing
@given(
    texts_like(["pool5", "conv1_1", ":", "max", "all", "top:", "unit:", "1", "2,", "99999999999", "²", " "]),
    st.one_of(st.sampled_from(sorted(MODELS)), TEXTS),
)
def test_layer_specs(text: str, model: str) -> None:
    spec = only_ours(parse_spec, text, model)
    if spec is not None:
        assert parse_specs([str(spec)], model) == (spec,)
        assert spec.slug.isascii()
        assert "/" not in spec.slug


SECRET = "hunter2"  # noqa: S105 (nobody's)
SETTINGS = texts_like(
    [
        *("redis://", "rediss://", "unix://", "https://", f"user:{SECRET}@", "host", ":6379", ":", "/0", "?"),
        *("=", "ssl_cert_reqs=", "none", "&db=1", "#", "[", "]", "1", "-1", "true", "auto", "/data", ","),
        "s3://b/c",
    ]
)


@fuzzing
@given(st.sampled_from(VARIABLES), SETTINGS)
def test_the_environment(name: str, value: str) -> None:
    value = value.encode("utf-8", "ignore").replace(b"\0", b"").decode()
    with patch.dict(os.environ, {name: value}):
        loaded = only_ours(load_settings)
    if loaded is not None and loaded.redis_url is not None:
        assert celery_url(loaded.redis_url).partition("://")[0] in ("redis", "rediss", "redis+socket")


@fuzzing
@given(st.sampled_from(["DECONVOY_REDIS_URL", "DECONVOY_S3_ENDPOINT_URL"]), SETTINGS, SETTINGS)
def test_no_error_tells_the_password_of_an_url(name: str, before: str, after: str) -> None:
    # Whatever is wrong with it: it holds an @, and so a password may stand before.
    value = f"{before}{SECRET}@{after}".encode("utf-8", "ignore").replace(b"\0", b"").decode()
    if SECRET in value.rpartition("@")[2]:
        return
    told = ""
    with patch.dict(os.environ, {name: value}):
        only_ours(load_settings)
        try:
            load_settings()
        except SettingsError as error:
            told = str(error)
    assert SECRET not in told


PATHS = texts_like(["/", "data", "..", ".", "s3://", "bucket", "//", "%2e%2e", "link", "\0"])


@fuzzing
@given(PATHS, st.lists(st.sampled_from(["/data", "s3://bucket", "s3://bucket/data", "/"]), max_size=2))
def test_names_of_images_and_places(name: str, roots: list[str]) -> None:
    only_ours(check_image, name, roots)
    only_ours(check_place, name, roots)


@fuzzing
@given(PATHS)
def test_roots(text: str) -> None:
    with suppress(ValueError):
        parse_roots(text)


@pytest.mark.parametrize("depth", [10, 1000, 100_000])
def test_nesting(depth: int) -> None:
    for text in (b"[" * depth, b"[" * depth + b"]" * depth, b'{"a":' * depth):
        only_ours(check_message, text)
        only_ours(check_message, listed(envelope(text)))
        only_ours(Job.from_json, text, "/jobs/a-job")
        only_ours(Retry.from_json, text, "retries/001.json")
        only_ours(read_manifest, text, "manifest")
        only_ours(read_plan, text, "plan")
