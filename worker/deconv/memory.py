"""How much may be in flight at once. It decides about memory and speed, never about the result."""

from __future__ import annotations

from dataclasses import dataclass

import torch

_CPU_BAND_ELEMENTS = 2**24
_CPU_WINDOW_ELEMENTS = 2**22
# Inside a block about six signals of this size are alive at once, besides the whole maps.
_SHARE_OF_FREE_MEMORY = 1 / 64
_BYTES_A_VALUE = 4


@dataclass(frozen=True)
class Budget:
    """`band_elements`: values of one feature map that are held inside a block; `window_elements`: values
    of one signal of windows that travel together. On a CPU 64 and 16 MiB in float32: larger ones leave
    its cache and gain nothing.
    """

    band_elements: int
    window_elements: int


def budget_of(device: torch.device) -> Budget:
    """The budget on this device: on a GPU by the memory that is free now."""
    if device.type != "cuda":
        return Budget(_CPU_BAND_ELEMENTS, _CPU_WINDOW_ELEMENTS)
    free_bytes, _total = torch.cuda.mem_get_info(device)
    elements = max(_CPU_BAND_ELEMENTS, int(free_bytes * _SHARE_OF_FREE_MEMORY) // _BYTES_A_VALUE)
    return Budget(elements, elements)
