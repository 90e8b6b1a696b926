"""The same engine on a CUDA device, held to what a CPU gives. Skipped where torch sees none."""

from __future__ import annotations

import pytest
import torch

from tests.deconv.common import net, on_whole_image, photograph, relative_difference, weights
from worker.contract.jobs import Precision
from worker.deconv import Deconvnet, certify

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

# Rounding may flip a pool's near-tie (docs/mathematics.md): end to end these precisions allow this much.
END_TO_END: dict[Precision, float] = {"fp32": 2e-3, "tf32": 5e-2, "bf16": 3e-1}


@pytest.mark.parametrize("precision", list(END_TO_END))
def test_a_gpu_gives_what_a_cpu_gives(precision: Precision) -> None:
    gpu = Deconvnet(weights("hed"), device="cuda", precision=precision)
    images_NHWC = torch.cat([photograph(0, 224, 224), photograph(1, 224, 224)])
    specs = ["pool1:top:3", "pool3:unit:7,12", "pool5:max", "pool2:all"]
    cpu = net("hed").project(net("hed").normalise(images_NHWC), specs)
    results = gpu.project(gpu.normalise(images_NHWC), specs)
    assert len(results) == len(cpu)
    assert not any(result.nonfinite for result in results)
    for ours, expected in zip(results, cpu, strict=True):
        assert (ours.image, ours.spec) == (expected.image, expected.spec)
        if (ours.unit, ours.y, ours.x) == (expected.unit, expected.y, expected.x):
            difference = relative_difference(
                on_whole_image(ours, 224, 224), on_whole_image(expected, 224, 224)
            )
            assert difference < END_TO_END[precision]
        else:
            assert precision != "fp32"


def test_the_certificate_of_a_gpu_in_fp32_is_near_that_of_a_cpu() -> None:
    numbers = certify(Deconvnet(weights("hed"), device="cuda"))
    assert numbers.zero_in_zero_out == 0
    assert numbers.fast_against_slow < 1e-5
    assert numbers.windows_against_dense < 1e-5
    assert numbers.activation_again < 1e-5
