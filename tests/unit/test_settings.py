"""Settings as they are read from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.contract.errors import SettingsError
from worker.contract.settings import load_settings


def test_the_cache_may_be_in_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DECONVOY_CACHE_DIR", "~/weights")

    assert load_settings().cache_dir == tmp_path / "weights"


def test_the_cache_of_nobody_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECONVOY_CACHE_DIR", "~no-such-user/weights")

    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == (
        "DECONVOY_CACHE_DIR='~no-such-user/weights' cannot be used: there is no user no-such-user; "
        "correct it or unset it"
    )
