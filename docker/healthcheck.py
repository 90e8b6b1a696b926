"""Whether the workers of this container live: exit code 0, or 1 and a line that says what is wrong.

It asks the launcher's metrics, on this machine alone. A Redis or a store that is away is not the workers'
fault, and starting them again would not help: so neither counts. A worker that died is started again by
its launcher within a minute, so only a state that lasts should have consequences: 5 failures in a row,
30 s apart, are that.

Only the standard library, and nothing of Deconvoy: it runs often, beside work.
"""

from __future__ import annotations

import re
import sys
import urllib.request
from http.client import HTTPException

URL = "http://127.0.0.1:9100/metrics"
_TIMEOUT_S = 9
"""The launcher itself waits 2 s for a Redis that is silent."""
_UP = re.compile(r'^deconvoy_worker_up\{worker="([^"]+)"\} (\S+)$', re.MULTILINE)


def complaint(url: str) -> str | None:
    """What is wrong with the workers whose metrics stand at `url`; None if all of them run."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:  # noqa: S310 (our own URL)
            metrics = response.read().decode()
    except (OSError, HTTPException) as error:
        return f"the launcher does not answer at {url}: {error}"
    workers = _UP.findall(metrics)
    if not workers:
        return f"no worker is named at {url}"
    dead = [worker for worker, up in workers if float(up) != 1]
    return f"not running: {', '.join(dead)}" if dead else None


if __name__ == "__main__":
    sys.exit(complaint(sys.argv[1] if len(sys.argv) > 1 else URL))
