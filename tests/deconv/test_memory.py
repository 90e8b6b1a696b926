"""Memory is bounded: the largest image, and the most units. Each is measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.length import at_length

GIB = 2**30

_MEASURE = """
import json, resource, sys
import torch
from worker.deconv import Deconvnet

side, spec = int(sys.argv[1]), sys.argv[2]
net = Deconvnet.load("random:0", device="cpu")
net.project(torch.randn(1, 3, 64, 64), ["pool5:max"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
x_NCHW = torch.randn(1, 3, side, side)
results = net.project(x_NCHW, [spec])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
nonfinite = sum(result.nonfinite for result in results)
print(json.dumps({"bytes": (after - before) * 1024, "n": len(results), "nonfinite": nonfinite}))
"""


def _peak_bytes(side: int, spec: str, n_results: int) -> int:
    """What one `project` needs above the loaded network. ru_maxrss is in KiB on Linux."""
    command = [sys.executable, "-c", _MEASURE, str(side), spec]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    assert measured["n"] == n_results
    assert measured["nonfinite"] == 0
    print(f"{spec} at {side} x {side}: {measured['bytes'] / GIB:.2f} GiB")
    return int(measured["bytes"])


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")


@linux_only
@pytest.mark.timeout(300)
def test_512_units_of_a_224_px_image_at_pool4_stay_under_half_a_gib() -> None:
    assert _peak_bytes(224, "pool4:top:512", 512) < 0.5 * GIB


@linux_only
@pytest.mark.timeout(300)
def test_a_whole_map_of_a_1024_px_image_stays_under_half_a_gib() -> None:
    assert _peak_bytes(1024, "pool5:all", 1) < 0.5 * GIB


@linux_only
@at_length
@pytest.mark.timeout(600)
def test_512_units_of_a_224_px_image_at_pool5_stay_under_1_gib() -> None:
    assert _peak_bytes(224, "pool5:top:512", 512) < 1 * GIB


@linux_only
@at_length
@pytest.mark.timeout(900)
def test_a_whole_map_of_a_4096_px_image_stays_under_3_gib() -> None:
    assert _peak_bytes(4096, "pool5:all", 1) < 3 * GIB
