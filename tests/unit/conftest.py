"""What unit tests share: no Redis of the environment, and images that nobody opens."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def no_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DECONVOY_REDIS_URL", raising=False)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "My Cats"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.png").touch()
    return folder
