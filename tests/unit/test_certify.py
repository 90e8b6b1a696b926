"""`deconvoy doctor --certify`: numbers for good weights, one line for bad ones."""

from __future__ import annotations

import pytest

from producer.cli import main
from worker.certify import main as certify


def test_doctor_certifies_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--weights", "random:0", "--certify"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.split()[1] == "certified")
    assert line.startswith("ok")
    assert "zero in, zero out 0;" in line
    assert "windows against dense 0;" in line


def test_certify_without_weights_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--certify"]) == 2
    assert "--certify needs --weights" in capsys.readouterr().err


def test_what_cannot_be_certified_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECONVOY_DEVICE", "cpu")
    assert certify(["random:0", "vgg16", "tf32"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
