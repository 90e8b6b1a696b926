"""The name that a worker goes by: to Celery, in Redis and in logs."""

from __future__ import annotations

import os
import secrets
import socket

VARIABLE = "DECONVOY_WORKER"
"""The environment variable in which the launcher gives a worker, and all that it starts, its name."""


def new_name(label: str) -> str:
    """A name that no process has had: one that is started in another's place is not taken for it."""
    return f"deconvoy-{label}-{secrets.token_hex(4)}@{socket.gethostname()}"


def own_name() -> str:
    """The name of the worker that this process belongs to."""
    return os.environ.get(VARIABLE) or f"deconvoy-{os.getpid()}@{socket.gethostname()}"
