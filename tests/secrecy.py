"""A password that is hard to hide, and the search for it in all that was said and left."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from urllib.parse import quote

PASSWORD = "a:pass/wörd@with?all#of%it"  # noqa: S105 (of a server that ends with the test)


def check_no_secret(secrets: Iterable[str], said: Sequence[str], left: Sequence[bytes]) -> None:
    """Neither what was said nor what was left holds a secret, plain or as it stands in an URL or in JSON."""
    assert left
    for secret in secrets:
        for spelling in {secret, quote(secret, safe=""), quote(secret), json.dumps(secret)[1:-1]}:
            assert not [text for text in said if spelling in text]
            assert not [data for data in left if spelling.encode() in data]
