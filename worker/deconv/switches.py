"""Max-pooling that remembers where each maximum stood, and the unpooling that puts it back.

Source: Zeiler & Fergus (arXiv 1311.2901), section 2.1, "Unpooling". The position within a 2 x 2 pool is
two bits of information; it is kept in one byte: 2 * row + column.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.deconv.geometry import Box, Size


def max_pool(x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Pool 2 x 2 with stride 2: the maxima, and the switches (uint8, 0 to 3), both N, C, H//2, W//2.

    Of equal values the first in reading order wins. An odd last row or column is dropped.
    """
    width = x_NCHW.shape[3]
    pooled_NCHW, index_NCHW = F.max_pool2d(x_NCHW, 2, return_indices=True)
    height_out, width_out = pooled_NCHW.shape[2:]
    corner_HW = _corners(Size(height_out, width_out), width, x_NCHW.device)
    offset_NCHW = index_NCHW.to(torch.int32) - corner_HW  # 0, 1, W or W + 1
    row_NCHW = (offset_NCHW >= width).view(torch.uint8)
    # The row's part is a multiple of W; without it the column is left.
    column_NCHW = (offset_NCHW - row_NCHW * width).to(torch.uint8)
    return pooled_NCHW, row_NCHW.mul_(2).add_(column_NCHW)


def unpool(signal_NCHW: Tensor, switches_NCHW: Tensor, given: Box, wanted: Box) -> Tensor:
    """Put each value where its maximum stood; everything else is zero.

    `signal_NCHW` and `switches_NCHW` lie on the box `given` of the pooled map; the result lies on the
    box `wanted` of the map before the pool, which may be smaller or larger than what `given` unpools to.
    """
    full = given.unpooled()
    n, channels = signal_NCHW.shape[:2]
    # Flat positions in channels-last memory: a scatter is deterministic, since no two values meet.
    row_stride, pixel_stride = full.width * channels, channels
    lut = _steps(pixel_stride, row_stride, signal_NCHW.device)
    corner_HWC = (
        torch.arange(given.height, device=signal_NCHW.device)[:, None, None] * (2 * row_stride)
        + torch.arange(given.width, device=signal_NCHW.device)[:, None] * (2 * pixel_stride)
        + torch.arange(channels, device=signal_NCHW.device)
    )
    switches_NHWC = switches_NCHW.permute(0, 2, 3, 1)
    index_NHWC = (
        lut.index_select(0, switches_NHWC.reshape(-1).int()).view(switches_NHWC.shape).add_(corner_HWC)
    )
    out_N = signal_NCHW.new_zeros(n, full.height * full.width * channels)
    out_N.scatter_(1, index_NHWC.view(n, -1), signal_NCHW.permute(0, 2, 3, 1).reshape(n, -1))
    out_NCHW = out_N.view(n, full.height, full.width, channels).permute(0, 3, 1, 2)
    if full == wanted:
        return out_NCHW
    return F.pad(
        out_NCHW,
        (
            full.left - wanted.left,
            wanted.right - full.right,
            full.top - wanted.top,
            wanted.bottom - full.bottom,
        ),
    )


@lru_cache(maxsize=256)
def _steps(pixel_stride: int, row_stride: int, device: torch.device) -> Tensor:
    """Switch -> distance from a pool's first place. Kept: on a GPU making it waits for all work before."""
    with torch.inference_mode(mode=False):
        return torch.tensor([0, pixel_stride, row_stride, row_stride + pixel_stride], device=device)


def position_of(place: tuple[int, int], switch: int) -> tuple[int, int]:
    """Where the maximum of the pool at `place` stood, in the map before the pool."""
    y, x = place
    return 2 * y + switch // 2, 2 * x + switch % 2


def _corners(size: Size, width: int, device: torch.device) -> Tensor:
    """The flat index of each pool's first place, in a map that is `width` wide: int32, H, W."""
    rows_H = torch.arange(size.height, dtype=torch.int32, device=device) * (2 * width)
    columns_W = torch.arange(size.width, dtype=torch.int32, device=device) * 2
    return rows_H[:, None] + columns_W
