"""Settings from the environment, all with the prefix `DECONVOY_`; the same for producer and workers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.contract.errors import SettingsError


class Settings(BaseSettings):
    """Each field is one variable: `redis_url` is `DECONVOY_REDIS_URL`."""

    model_config = SettingsConfigDict(env_prefix="DECONVOY_", frozen=True, extra="ignore")

    redis_url: str | None = Field(default=None, pattern=r"^(redis|rediss|unix)://")
    """The Redis that holds the queue: `redis://host:6379/0`, `rediss://…`, `unix:///path.sock`.
    Unset: `deconvoy run` starts a private one; the other commands ask for it."""

    cache_dir: Path = Path("~/.cache/deconvoy")
    """Where downloaded weights are kept."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where a worker computes; `auto` takes a GPU if there is one."""

    max_image_bytes: int = Field(default=256 * 2**20, ge=1)
    """An image file with more bytes than this is a failed row, not read."""

    max_image_pixels: int = Field(default=100_000_000, ge=1)
    """An image with more pixels than this is a failed row, not decoded."""

    shard_time_limit_s: int = Field(default=900, ge=10)
    """A shard that takes longer is ended and counts as failed; its message is kept four times as long."""

    shutdown_s: int = Field(default=60, ge=0)
    """How long a worker that is told to stop may go on with its shard before it gives it back."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """How much a worker says on stderr."""


def load_settings() -> Settings:
    """Read the environment. Raises SettingsError, which names the variable."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"DECONVOY_{'_'.join(map(str, first['loc'])).upper()}"
        raise SettingsError(
            f"{name}={first['input']!r} cannot be used: {first['msg']}; correct it or unset it"
        ) from error
