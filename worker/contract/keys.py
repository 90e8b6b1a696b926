"""Where each thing of a job stands, as keys relative to the job's place. A promise to readers."""

from __future__ import annotations

import hashlib
import re

from worker.contract.specs import LayerSpec

JOB = "job.json"
INDEX = "index.parquet"
SUMMARY = "summary.json"
FAILURES = "failures.jsonl"
REPORT = "report/index.html"
SINGLE_PAGE = "report/single.html"
"""Of an audit: the page with its pictures inside, so that a link to it gives all."""
CERTIFICATE = "certificate.json"
SHARDS = "shards/"
RETRIES = "retries/"
CANCELLED = "cancelled.json"
"""Stands while the job is cancelled: no worker begins another shard of it."""


def manifest_key(shard: int) -> str:
    """The slice of the manifest that this shard works through: one JSON object a line."""
    return f"manifest/{shard:06d}.jsonl"


def shard_key(shard: int) -> str:
    """The shard's record, written last: it stands = the shard is done."""
    return f"{SHARDS}{shard:06d}.parquet"


def retry_key(attempt: int) -> str:
    """Says which shards are tried again, the `attempt`-th time from 1: those with failed images."""
    return f"{RETRIES}{attempt:03d}.json"


def retry_shard_key(attempt: int, shard: int) -> str:
    """The record of a shard's images that were tried again; its rows take the place of earlier ones."""
    return f"{RETRIES}{attempt:03d}/{shard:06d}.parquet"


def image_key(image: str) -> str:
    """A short name for an image: readable, unique in a job, safe in file systems and URLs.

    `image` is the image as submitted (a path or URI); the same image always gets the same key.
    """
    stem = image.rstrip("/").rpartition("/")[2].rpartition(".")
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", stem[0] or stem[2]).strip("-")[:40]
    digest = hashlib.sha256(image.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{readable}-{digest}" if readable else digest


def recon_key(spec: LayerSpec, key: str, suffix: str, unit: int | None = None) -> str:
    """Where one reconstruction stands: a file an image, or a folder an image for `top` and `unit`."""
    name = key if unit is None or spec.selection == "max" else f"{key}/unit-{unit:03d}"
    return f"recon/{spec.slug}/{name}.{suffix}"


def input_key(key: str) -> str:
    """The preprocessed image, as the network saw it; JPEG, for people to look at."""
    return f"inputs/{key}.jpg"


def tar_key(shard: int, sha256: str) -> str:
    """Where all pictures of a shard stand in layout `tar`; `sha256` is the archive's, in hex.

    Two workers on one shard whose pictures differ write two archives, and the record names its own.
    """
    return f"recon/{shard:06d}-{sha256[:12]}.tar"


STATISTICS = "statistics.parquet"
"""Of an audit: what its scan says of each unit, written before the atlas is begun."""
UNITS = "units.parquet"
IMAGES = "images.parquet"
ATLAS = "atlas.parquet"
FINDINGS = "findings.parquet"


def plan_key(chunk: int) -> str:
    """The winners that one shard of an audit's atlas projects: one JSON object an image."""
    return f"atlas/plan/{chunk:06d}.jsonl"


def atlas_key(layer: str, unit: int, what: str) -> str:
    """A unit's pictures: `reconstructions`, `patches` or `controls`, all its winners in one."""
    return f"atlas/{layer}/unit-{unit:03d}-{what}.webp"
