"""The plan of an atlas shard, written and read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from worker.contract.audits import Winners, plan_bytes, read_plan
from worker.contract.errors import MessageError


def test_a_plan_is_read_as_it_was_written() -> None:
    peak = float(np.float32(0.1))
    lines = [
        Winners(
            image='a "quoted"\n\u2028 name', key="a-1", sha256="0" * 64, winners=((3, 0, peak), (4, 8, 2.0))
        ),
        Winners(image="b", key="b-1", sha256="f" * 64, winners=((3, 1, 1e-45),)),
    ]
    data = plan_bytes(lines)
    assert read_plan(data, "plan") == lines
    assert [json.loads(line)["winners"] for line in data.decode().split("\n")[:-1]] == [
        [[3, 0, peak], [4, 8, 2.0]],
        [[3, 1, 1e-45]],
    ]


@pytest.mark.parametrize(
    "line", [b"{", b'{"image":"a","key":"a","sha256":"00","winners":[[1,0,1.0]]}', b'{"image":"a"}', b"\xff"]
)
def test_a_plan_of_another_shape_is_refused(line: bytes) -> None:
    good = plan_bytes([Winners(image="a", key="a", sha256="0" * 64, winners=((1, 0, 1.0),))])
    with pytest.raises(
        MessageError, match=r"plan atlas/plan/1 line 2 is none: .*use the version that wrote it"
    ):
        read_plan(good + line + b"\n", "atlas/plan/1")
