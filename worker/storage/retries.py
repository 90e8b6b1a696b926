"""When a request to S3 is made again, and after which pause.

Not as botocore's own modes do it: there all threads of a client share one budget of 35 retries, which only
requests that succeed refill, and the pauses of a server that is down add up to a few seconds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from worker.storage.s3_errors import is_busy, is_silence

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 20.0


def pause_s(attempt: int) -> float:
    """How long to wait after attempt 1, 2, 3, …: up to 0.5, 1, 2, … 20 s.

    By chance, so that not all who failed together come back together.
    """
    return random.uniform(0, min(_FIRST_PAUSE_S * 2.0 ** (attempt - 1), _LONGEST_PAUSE_S))  # noqa: S311 (chance, no secret)


@dataclass(frozen=True)
class Retries:
    """A handler of botocore's event `needs-retry`, which comes after each attempt of each request."""

    max_attempts: int

    def __call__(
        self,
        *,
        attempts: int,
        response: tuple[Any, dict[str, Any]] | None,
        caught_exception: BaseException | None,
        **_: object,
    ) -> float | None:
        """The seconds to wait before the next attempt; None: there is none."""
        if attempts >= self.max_attempts:
            return None
        if response is None:
            again = is_silence(caught_exception)
        else:
            http, parsed = response
            again = is_busy(http.status_code, parsed.get("Error", {}).get("Code", ""))
        return pause_s(attempts) if again else None
