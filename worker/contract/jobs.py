"""The job file and the shard message: frozen, versioned, JSON only.

A job is described once, in `job.json` in its place; a message carries nothing but where that place
is and which shard to work on. Unknown fields and other versions are refused, so that a worker never
guesses what a newer producer meant.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from worker.contract import specs as layer_specs
from worker.contract.architectures import DEFAULT_MODEL, MIN_IMAGE_SIZE, Layer
from worker.contract.audits import AuditOptions, atlas_chunks
from worker.contract.errors import MessageError
from worker.contract.formats import PICTURE_FORMATS
from worker.contract.queue import Priority

FORMAT_VERSION: Final = 1
"""Version of `job.json`, of manifests, records and messages. Raised when an old reader would err."""

NUMERICS_VERSION = 2
"""Raised when the same job would give other pixels; part of the fingerprint."""

MAX_ATTEMPTS: Final = 999
"""How often what failed in a job may be tried again."""

MAX_SHARDS: Final = 10_000_000
"""What a broken number may cost: each shard of a job is looked at when its status is asked for."""

Resize = Literal["crop", "fit", "native"]


def _known_format(name: str) -> str:
    if name not in PICTURE_FORMATS:
        raise PydanticCustomError("picture_format", f"choose from {', '.join(PICTURE_FORMATS)}")
    return name


PictureFormat = Annotated[str, AfterValidator(_known_format)]
"""A name in `PICTURE_FORMATS`."""

Layout = Literal["files", "tar"]
Precision = Literal["fp32", "tf32", "bf16"]


JobId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,80}$")]
"""Part of paths, of keys in Redis and of log lines: nothing else may be in it."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Preprocessing(_Frozen):
    """How a photograph becomes the network's input.

    `crop`: shorter side to size * 256 / 224, centre square of `size_px` (the ImageNet way);
    `fit`: longer side to `size_px`, the whole image; `native`: as it is, `size_px` has no meaning.
    """

    resize: Resize = "crop"
    size_px: int = Field(default=224, ge=MIN_IMAGE_SIZE, le=4096)


class WeightsRef(_Frozen):
    """Which weights: `imagenet`, `hed` or a path; `sha256` of the file where it is known beforehand."""

    name: str
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class Request(_Frozen):
    """What a user asks for: all that decides what the pixels are, and how they are stored."""

    specs: tuple[str, ...] = layer_specs.DEFAULT_SPECS
    model: str = DEFAULT_MODEL
    weights: WeightsRef = WeightsRef(name="imagenet")
    preprocessing: Preprocessing = Preprocessing()
    precision: Precision = "fp32"
    format: PictureFormat = "png"
    layout: Layout = "files"

    def parsed_specs(self) -> tuple[layer_specs.LayerSpec, ...]:
        """The layer specs, read. Raises SpecError."""
        return layer_specs.parse_specs(self.specs, self.model)


class Job(_Frozen):
    """`job.json`. `place` is the folder or bucket prefix that everything of the job stands under.

    `shard_size` is the number of images of each shard but the last, `batch_size` that of images that go
    forward together; None: the worker finds it. With `audit` the job is an audit: shards from 0 scan the
    `n_images`, those from `n_shards` make the atlas.
    """

    format_version: Literal[1] = FORMAT_VERSION
    id: JobId
    place: str
    created: datetime
    request: Request
    audit: AuditOptions | None = None
    batch_size: int | None = Field(default=None, ge=1, le=4096)
    priority: Priority = "normal"
    shard_size: int = Field(ge=1, le=100_000)
    n_images: int = Field(ge=1, le=MAX_SHARDS * 100_000)
    n_shards: int = Field(ge=1, le=MAX_SHARDS)
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    versions: dict[str, str] = {}

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that the job's specs name, each once, in the order of the network."""
        layers = {spec.layer for spec in self.request.parsed_specs()}
        return tuple(sorted(layers, key=lambda layer: layer.index))

    @property
    def n_atlas_shards(self) -> int:
        """How many shards come after those that work through the images: none but for an audit."""
        return 0 if self.audit is None else len(atlas_chunks(self.layers))

    def to_json(self) -> bytes:
        """The file's bytes: indented, sorted, so that two jobs can be compared by eye."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes | str, where: str) -> Self:
        """Read `job.json`, which stands at `where`. Raises MessageError."""
        return _validated(cls, data, f"job file {where}")


class ShardMessage(_Frozen):
    """One message of the queue: work on shard `shard` of the job that stands at `place`.

    `attempt` 0 is all of the shard; a later one is what failed in those before.
    """

    format_version: Literal[1] = FORMAT_VERSION
    job: JobId
    place: str = Field(max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+$")
    shard: int = Field(ge=0, le=2 * MAX_SHARDS)
    attempt: int = Field(default=0, ge=0, le=MAX_ATTEMPTS)

    @classmethod
    def from_body(cls, body: object) -> Self:
        """Read a message's body. Raises MessageError."""
        try:
            text = json.dumps(body)
        except (TypeError, ValueError, RecursionError) as error:
            raise MessageError(f"message is no JSON: {type(error).__name__}; drop it") from error
        return _validated(cls, text, "message")


class Retry(_Frozen):
    """The shards that are tried again, because images of theirs have failed; `attempt` from 1."""

    format_version: Literal[1] = FORMAT_VERSION
    attempt: int = Field(ge=1, le=MAX_ATTEMPTS)
    shards: tuple[Annotated[int, Field(ge=0, le=2 * MAX_SHARDS)], ...] = Field(min_length=1)

    def to_json(self) -> bytes:
        """The file's bytes."""
        return self.model_dump_json().encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Self:
        """Read the file that stands at `where`. Raises MessageError."""
        return _validated(cls, data, f"retry file {where}")


class ManifestEntry(_Frozen):
    """One line of a manifest slice: the image as submitted, and its key within the job."""

    image: str
    key: str


_quoted = json.JSONEncoder(ensure_ascii=False).encode


def manifest_line(image: str, key: str) -> bytes:
    """A line of a manifest slice: the bytes of a ManifestEntry's JSON, three times as fast as its own way."""
    return f'{{"image":{_quoted(image)},"key":{_quoted(key)}}}\n'.encode()


def manifest_bytes(entries: Iterable[ManifestEntry]) -> bytes:
    """A manifest slice: one JSON object a line."""
    return b"".join(manifest_line(entry.image, entry.key) for entry in entries)


def read_manifest(data: bytes, where: str) -> list[ManifestEntry]:
    """The entries of the slice at `where`, in order. Raises MessageError."""
    return [
        _validated(ManifestEntry, line, f"manifest {where} line {number}")
        for number, line in enumerate(data.splitlines(), start=1)
    ]


def fingerprint(request: Request, images: Iterable[str], audit: AuditOptions | None = None) -> str:
    """Hex sha256 over what decides the result: the images' names in order, the request, what an audit is."""
    digest = hashlib.sha256()
    head = {"numerics": NUMERICS_VERSION, "request": request.model_dump(mode="json")}
    if audit is not None:
        head["audit"] = audit.model_dump(mode="json")
    digest.update(json.dumps(head, sort_keys=True).encode())
    for image in images:
        digest.update(b"\n" + image.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def job_id(name: str, job_fingerprint: str) -> str:
    """The job's id: its name made safe, and the start of its fingerprint."""
    return f"{safe_name(name)}-{job_fingerprint[:10]}"


def safe_name(name: str) -> str:
    """A name as ids hold it: small letters, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "job"


_Model = TypeVar("_Model", bound=_Frozen)


def _validated(model: type[_Model], data: bytes | str, what: str) -> _Model:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        # Names of fields that we don't know are others' words: they must not break a line, nor fill it.
        field = ".".join(ascii(part)[:80] for part in first["loc"]).replace("'", "") or "the whole"
        raise MessageError(
            f"{what} is not of format version {FORMAT_VERSION}: {field}: {first['msg']}; "
            "use the same deconvoy version for producer and workers"
        ) from error
