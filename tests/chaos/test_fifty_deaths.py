"""Workers are killed again and again over one job, by chance: the process that computes, or everything."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from tests.chaos.conftest import Length, finish
from tests.chaos.convoy import Convoy, Outcome
from tests.length import at_length
from worker.contract import queue

pytestmark = [pytest.mark.chaos, pytest.mark.integration, pytest.mark.timeout(1200)]

SEED = 5
SHARE_OF_MACHINES = 0.3
IMAGES_A_DEATH = 12
"""So many images there are for each death: the job must not end before the last."""
SHARD_SIZE = 5
SECONDS_AN_IMAGE = 0.15
LONGEST_LIFE_S = 1.5
"""How long a worker lives at most, from the first image on that it has done."""


@at_length
def test_workers_that_die_every_few_seconds(
    convoy: Convoy, name: str, length: Length, capsys: pytest.CaptureFixture[str]
) -> None:
    n_images = IMAGES_A_DEATH * length.n_kills
    for number in range(n_images):
        convoy.put_image(number, prefix="many")
    convoy.set_pace(0)
    convoy.the_worker()
    undisturbed = convoy.submit(f"{name}-undisturbed", "many", shard_size=SHARD_SIZE)
    undisturbed.wait()

    chance = random.Random(SEED)  # noqa: S311 (chance, no secret)
    convoy.set_pace(SECONDS_AN_IMAGE)
    before = len(convoy.projected())
    handle = convoy.submit(name, "many", shard_size=SHARD_SIZE)
    started = time.monotonic()
    kills: Counter[str] = Counter()
    most_losses = 0
    while kills.total() < length.n_kills:
        worker = convoy.the_worker()
        convoy.wait_for_images(1, len(convoy.projected()))
        time.sleep(chance.uniform(0, LONGEST_LIFE_S))
        losses = convoy.client.hgetall(queue.deliveries_key(handle.id))
        most_losses = max([most_losses, *(int(n) - 1 for field, n in losses.items() if field.isdigit())])
        if chance.random() < SHARE_OF_MACHINES:
            worker.kill_all()
            kills["machine"] += 1
        elif worker.kill_computing():
            kills["process"] += 1
    killed_s = time.monotonic() - started
    assert handle.missing_shards(), "the job lasts longer than the killing"
    convoy.set_pace(0)
    convoy.the_worker()
    finish(convoy, handle, Outcome.of(undisturbed))

    images = convoy.projected()[before:]
    with capsys.disabled():
        print(
            f"\n{kills.total()} kills in {killed_s:.0f} s ({kills['process']} processes, {kills['machine']} "
            f"machines), {n_images} images, {len(images)} computed, {len(images) - len(set(images))} of them "
            f"again; at most {most_losses} deaths on one shard"
        )
