"""What submits and watches: command line, sources, jobs. Light: never imports torch.

`submit`, `audit` and `open_job` are the Python interface; they load when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from producer.audits import audit
    from producer.jobs import open_job, submit

__all__ = ["audit", "open_job", "submit"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from producer import audits, jobs

    return getattr(audits if name == "audit" else jobs, name)
