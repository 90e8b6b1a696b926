"""The boto3 client of this process. Settings come from the environment, credentials the usual AWS way."""

from __future__ import annotations

import os
import threading
from importlib.metadata import version
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from worker.contract.errors import SettingsError, StorageDenied
from worker.contract.paths import expanded
from worker.contract.settings import Settings, load_settings
from worker.storage.retries import Retries

_MAX_CONNECTIONS = 64
"""More than the threads of a worker: what goes beyond is opened anew for each request."""

# Looked at for each client that is asked for: to load the settings takes a hundred times as long.
_VARIABLES = (
    *(f"DECONVOY_{name.upper()}" for name in Settings.model_fields if name.startswith("s3_")),
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_DEFAULT_REGION",
)

_clients: dict[tuple[str | None, ...], Any] = {}
_creating = threading.Lock()


def s3_client() -> Any:
    """The client for the settings of now: one for all threads of this process.

    Raises SettingsError, and StorageDenied if AWS_PROFILE names no profile.
    """
    key = tuple(map(os.environ.get, _VARIABLES))
    client = _clients.get(key)
    if client is not None:
        return client
    with _creating:
        if key not in _clients:
            _clients[key] = _new_client(load_settings())
        return _clients[key]


def _new_client(settings: Settings) -> Any:
    config = Config(
        signature_version="s3v4",
        retries={"mode": "standard", "total_max_attempts": 1},  # see `Retries`
        connect_timeout=settings.s3_connect_timeout_s,
        read_timeout=settings.s3_read_timeout_s,
        max_pool_connections=_MAX_CONNECTIONS,
        tcp_keepalive=True,
        request_checksum_calculation=settings.s3_checksums,
        response_checksum_validation=settings.s3_checksums,
        s3={"addressing_style": settings.s3_addressing_style},
        user_agent_extra=f"deconvoy/{version('deconvoy')}",
    )
    verify = _authorities(settings) if settings.s3_verify_tls else False
    try:
        # A session of its own: boto3's default one must not be shared by threads.
        client = boto3.Session().client(
            "s3", endpoint_url=settings.s3_endpoint_url, verify=verify, config=config
        )
    except ValueError as error:
        raise SettingsError(
            f"DECONVOY_S3_ENDPOINT_URL cannot be used: {error}; write it as https://host:port"
        ) from error
    except BotoCoreError as error:
        raise StorageDenied(f"no S3 client can be made: {error}; correct the AWS settings") from error
    client.meta.events.register("needs-retry.s3", Retries(settings.s3_max_attempts))
    return client


def _authorities(settings: Settings) -> str | None:
    """The bundle that is set; None leaves the choice to botocore (AWS_CA_BUNDLE, then its own)."""
    if settings.s3_ca_bundle is None:
        return None
    bundle = expanded(settings.s3_ca_bundle)
    if not bundle.is_file():
        raise SettingsError(f"DECONVOY_S3_CA_BUNDLE={str(bundle)!r} is no file: name a PEM file or unset it")
    return str(bundle)


def _forget() -> None:
    """A forked child makes clients of its own: connections and locks of the parent's are not for it."""
    global _creating
    _clients.clear()
    _creating = threading.Lock()


os.register_at_fork(after_in_child=_forget)
