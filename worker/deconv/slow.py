"""The way down once more, slowly and from the definition alone: what the fast ways are certified against.

torch's own unpooling and transposed convolution, densely, a layer at a time. The pass up is the fast
one's: switches and seeds are the same, so that nothing but the way down is compared.
Source: Zeiler & Fergus (arXiv 1311.2901), section 2.1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.deconv.forward import Forward
from worker.deconv.trunk import Trunk


def project_slowly(trunk: Trunk, index: int, seed_NCHW: Tensor, up: Forward) -> Tensor:
    """Project what is kept of the feature map of layer `index` back to pixels: N, 3, H, W."""
    signal_NCHW = seed_NCHW
    for block in reversed(trunk.blocks):
        if block.pool.index <= index:
            size = up.sizes[block.number - 1]
            indices_NCHW = _flat_indices(up.switches_NCHW[block.number], size.width)
            signal_NCHW = F.max_unpool2d(
                signal_NCHW.contiguous(), indices_NCHW, [2, 2], output_size=list(size)
            )
        for convolution in reversed(block.convolutions):
            if convolution.layer.index + 1 <= index:
                signal_NCHW = signal_NCHW.relu()
            if convolution.layer.index <= index:
                signal_NCHW = F.conv_transpose2d(signal_NCHW, convolution.kernel_OIHW, padding=1)
    return signal_NCHW


def _flat_indices(switches_NCHW: Tensor, width: int) -> Tensor:
    """Torch's switches, flat in the map before the pool, of ours."""
    switches_NCHW = switches_NCHW.long().contiguous()
    height_out, width_out = switches_NCHW.shape[2:]
    rows = torch.arange(height_out, device=switches_NCHW.device)[:, None] * 2 + switches_NCHW // 2
    columns = torch.arange(width_out, device=switches_NCHW.device) * 2 + switches_NCHW % 2
    return rows * width + columns
