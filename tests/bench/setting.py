"""What everything is measured on: images, weights, settings, and the machine."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from tests.deconv.common import photograph
from tests.photographs import NAMES
from worker.deconv import Deconvnet
from worker.deconv.weights import Weights

N_IMAGES = 2


@dataclass(frozen=True)
class Setting:
    """`x_NCHW` holds the photographs as torch users have them: contiguous, on the net's device."""

    net: Deconvnet
    weights: Weights
    x_NCHW: Tensor
    quick: bool
    full: bool

    @classmethod
    def of(cls, weights: Weights, size: int, *, quick: bool, full: bool) -> Setting:
        net = Deconvnet(weights, device="auto")
        images_NHWC = torch.cat([photograph(number, size, size) for number in range(N_IMAGES)])
        return cls(net, weights, net.normalise(images_NHWC).contiguous(), quick, full)

    @property
    def x_channels_last_NCHW(self) -> Tensor:
        """The same input in the layout that the engine works in."""
        return self.x_NCHW.contiguous(memory_format=torch.channels_last)

    def described(self) -> dict[str, object]:
        """Settings and machine for the header and the record."""
        cuda = self.net.device.type == "cuda"
        return {
            "images": list(NAMES[:N_IMAGES]),
            "size": self.x_NCHW.shape[2],
            "weights": self.weights.info.name,
            "quick": self.quick,
            "full": self.full,
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(self.net.device) if cuda else "cpu",
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "torchvision", "captum")},
        }


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
