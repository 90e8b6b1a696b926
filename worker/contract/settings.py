"""Settings from the environment, all with the prefix `DECONVOY_`; the same for producer and workers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from worker.contract.errors import SettingsError
from worker.contract.paths import DEFAULT_CACHE_DIR, expanded
from worker.contract.roots import parse_roots

_REDIS_OPTIONS = {
    "redis": frozenset[str](),
    "rediss": frozenset({"ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_keyfile"}),
    "unix": frozenset({"db"}),
}
_CERT_REQS = frozenset({"required", "optional", "none"})


def _checked_redis_url(url: str) -> str:
    """What redis-py and kombu both understand, and alike. Raises ValueError."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    usable = _REDIS_OPTIONS[parts.scheme]
    if options.keys() - usable:
        raise ValueError(f"the options of {parts.scheme}:// are {', '.join(sorted(usable)) or 'none'}")
    if parts.fragment:
        raise ValueError("it has a '#': write %23 where it belongs to the password")
    if parts.scheme == "unix" and not parts.path.strip("/"):
        raise ValueError("it names no socket: write unix:///path/of/redis.sock")
    # The port is looked at when it is asked for.
    if parts.scheme != "unix" and (not parts.hostname or parts.port == 0):
        raise ValueError("it names no host: write redis://host:6379/0")
    database = options.get("db", parts.path.strip("/") if parts.scheme != "unix" else "")
    if database and not (database.isascii() and database.isdigit() and len(database) < 6):
        raise ValueError("its database is no number")
    if options.get("ssl_cert_reqs", "required") not in _CERT_REQS:
        raise ValueError("ssl_cert_reqs is none of required, optional, none")
    return url


def _folder_of_a_known_user(path: Path) -> Path:
    """The path with `~` written out. Raises ValueError: `~name` of nobody would be a folder of that name."""
    folder = expanded(path)
    if str(folder).startswith("~"):
        raise ValueError(f"there is no user {folder.parts[0].removeprefix('~')}")
    return folder


class Settings(BaseSettings):
    """Each field is one variable: `redis_url` is `DECONVOY_REDIS_URL`."""

    model_config = SettingsConfigDict(env_prefix="DECONVOY_", frozen=True, extra="ignore")

    redis_url: Annotated[
        Annotated[str, Field(pattern=r"^(redis|rediss|unix)://"), AfterValidator(_checked_redis_url)] | None,
        Field(default=None),
    ]
    """The Redis that holds the queue: `redis://user:password@host:6379/0`, `rediss://…` with TLS,
    `unix:///path.sock`. What is special in a password is percent-encoded. `?ssl_ca_certs=FILE` names the
    authorities that vouch for the server. Unset: `deconvoy run` starts a private one; the other commands ask
    for it."""

    s3_endpoint_url: str | None = Field(default=None, pattern=r"^https?://[^/\s]+")
    """The server behind `s3://` places, such as `http://minio:9000`. Unset: AWS."""

    s3_addressing_style: Literal["auto", "path", "virtual"] = "auto"
    """`path`: the bucket stands in the path of a request; `virtual`: in its host name; `auto`: in the
    path if an endpoint is set, else as AWS wants it."""

    s3_checksums: Literal["when_supported", "when_required"] = "when_supported"
    """Whether uploads carry a checksum and downloads are checked: wherever S3 defines one, or only where
    it must be. Some servers other than AWS need `when_required`."""

    s3_verify_tls: bool = True
    """Whether the certificate of an `https` endpoint is checked."""

    s3_ca_bundle: Path | None = None
    """A PEM file with the authorities that vouch for the endpoint's certificate. Unset: the usual ones."""

    s3_connect_timeout_s: int = Field(default=10, ge=1)
    """How long a connection to S3 may take to come about."""

    s3_read_timeout_s: int = Field(default=60, ge=1)
    """How long S3 may be silent in the middle of a request."""

    s3_max_attempts: int = Field(default=8, ge=1)
    """How often a request to S3 is made in all before it counts as failed; the pauses grow up to 20 s."""

    cache_dir: Annotated[Path, AfterValidator(_folder_of_a_known_user)] = DEFAULT_CACHE_DIR
    """Where downloaded weights are kept."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where a worker computes; `auto` takes a GPU if there is one."""

    max_image_bytes: int = Field(default=256 * 2**20, ge=1)
    """An image file with more bytes than this is a failed row, not read."""

    max_image_pixels: int = Field(default=100_000_000, ge=1)
    """An image with more pixels than this is a failed row, not decoded."""

    allowed_roots: Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_roots)] = ()
    """Folders and `s3://` prefixes with commas between them: `/data,s3://photos/2026`. An image that lies
    under none of them is not read. Unset: whatever a worker can read."""

    allowed_places: Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_roots)] = ()
    """Likewise, where jobs may stand. A worker does nothing for a job that stands elsewhere. Unset: wherever
    a worker can read and write."""

    shard_time_limit_s: int = Field(default=900, ge=10)
    """A shard that takes longer is ended and counts as failed; its message is kept four times as long."""

    lease_s: int = Field(default=60, ge=2)
    """How long after its last sign of life a worker counts as dead; what it held is given back then."""

    shutdown_s: int = Field(default=60, ge=0)
    """How long a worker that is told to stop may go on with its shard before it gives it back."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """How much a worker says on stderr."""

    log_format: Literal["text", "json"] = "text"
    """How it says it; `json`: an object a line."""


def load_settings() -> Settings:
    """Read the environment. Raises SettingsError, which names the variable."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"DECONVOY_{'_'.join(map(str, first['loc'])).upper()}"
        reason = first["msg"].removeprefix("Value error, ")
        # Not from `error`, which quotes the value as it is.
        value = _without_secrets(str(first["input"]))
        raise SettingsError(f"{name}={value!r} cannot be used: {reason}; correct it or unset it") from None


def _without_secrets(value: str) -> str:
    """The value without what may be a URL's user, password and options."""
    scheme, separator, rest = value.partition("://")
    if not separator or "@" in scheme:
        # A URL that lacks its scheme may have a password all the same.
        return "…" if "@" in value else value
    return scheme + separator + rest.rpartition("@")[2].partition("?")[0]
