"""The floor under a piece of work: its convolutions alone, in the same shapes and order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor

from worker.deconv import forward, projection, trunk, windows
from worker.deconv.geometry import Padding
from worker.deconv.trunk import Kernel

Call = tuple[torch.Size, Kernel, Tensor | None, Padding, bool]


def replay(work: Callable[[], object]) -> Callable[[], None]:
    """Run `work` once; what is returned does all convolutions of it again and nothing else.

    Inputs of one shape share their memory: what counts is arithmetic, not where a signal comes from.
    """
    calls: list[Call] = []
    with _recorded(calls):
        work()
    inputs = {
        (call[0], call[1][0].dtype): torch.rand(
            call[0], dtype=call[1][0].dtype, device=call[1][0].device
        ).contiguous(memory_format=torch.channels_last)
        for call in calls
    }

    def again() -> None:
        with torch.inference_mode():
            for shape, kernel, bias_O, padding, rectify in calls:
                x_NCHW = inputs[shape, kernel[0].dtype]
                trunk.convolve(x_NCHW, kernel, bias_O, padding, rectify=rectify)

    return again


@contextmanager
def _recorded(calls: list[Call]) -> Iterator[None]:
    def convolve(
        x_NCHW: Tensor, kernel: Kernel, bias_O: Tensor | None, padding: Padding, *, rectify: bool
    ) -> Tensor:
        calls.append((x_NCHW.shape, kernel, bias_O, padding, rectify))
        return trunk.convolve(x_NCHW, kernel, bias_O, padding, rectify=rectify)

    with (
        mock.patch.object(forward, "convolve", convolve),
        mock.patch.object(projection, "convolve", convolve),
        mock.patch.object(windows, "convolve", convolve),
    ):
        yield
