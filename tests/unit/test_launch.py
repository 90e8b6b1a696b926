"""Which workers a machine gets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.contract.errors import DeviceError
from worker.launch import choose_gpus, environment_of, visible_gpus


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        "echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-11111111-2222-3333-4444-555555555555)'\n"
        "echo '  MIG 1g.10gb     Device  0: (UUID: MIG-11111111-2222-3333-4444-555555555555)'\n"
        "echo 'GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-66666666-7777-8888-9999-000000000000)'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("wanted", "device", "gpus"),
    [
        ("all", "auto", ["0", "1"]),
        ("all", "cpu", [None]),
        ("none", "auto", [None]),
        ("1", "auto", ["1"]),
        ("1,0,1", "cuda", ["1", "0"]),
    ],
)
def test_each_gpu_that_is_wanted_gets_one_worker(
    two_gpus: None, wanted: str, device: str, gpus: list[str | None]
) -> None:
    assert choose_gpus(wanted, device) == gpus


def test_a_gpu_that_is_not_there_is_refused_and_those_there_are_named(two_gpus: None) -> None:
    with pytest.raises(DeviceError, match=r"GPU '2'.*0, 1"):
        choose_gpus("0,2", "auto")


def test_without_gpus_all_means_one_worker_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    assert choose_gpus("all", "auto") == [None]


def test_the_devices_that_cuda_may_see_already_stay_the_limit(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")

    assert visible_gpus() == ["1"]


def test_each_worker_sees_its_own_device_alone() -> None:
    on_gpu, on_cpu = environment_of("1", {"HOME": "/h"}), environment_of(None, {})

    assert (on_gpu["CUDA_VISIBLE_DEVICES"], on_gpu["HOME"]) == ("1", "/h")
    assert (on_cpu["CUDA_VISIBLE_DEVICES"], on_cpu["DECONVOY_DEVICE"]) == ("", "cpu")
    assert on_gpu["REMAP_SIGTERM"] == on_cpu["REMAP_SIGTERM"] == "SIGQUIT"
