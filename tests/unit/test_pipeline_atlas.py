"""An atlas shard: the winners' windows with their controls, drawn side by side with one scale a unit."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from tests.photographs import photographs
from tests.unit.audits import make_audit, run, winners_of
from tests.unit.shards import FIT, LIMITS, SMALL, objects_of
from tests.unit.standin import Control, Controls, StandInEngine, UnitAscent, noise_images
from worker.audit.reading import read_table
from worker.contract import keys, records
from worker.contract.audit_tables import ATLAS_SCHEMA
from worker.contract.audits import AuditOptions, Winners, plan_bytes
from worker.contract.errors import JobError, ObjectNotFound
from worker.contract.jobs import Job
from worker.deconv import Controls as RealControls
from worker.deconv import Deconvnet
from worker.display import display
from worker.pipeline import Assignment, Caution, ShardResult, run_atlas
from worker.pipeline.preprocess import preprocess
from worker.pipeline.sprites import Field
from worker.storage import Store

STD_C = (58.395, 57.12, 57.375)
TOP3 = AuditOptions(top=3)


def _plan(
    store: Store, job: Job, winners: Mapping[Path, Sequence[tuple[int, int, float]]], chunk: int = 0
) -> None:
    """The plan of a chunk, as the merge leaves it."""
    lines = [
        Winners(image=str(path), key=keys.image_key(str(path)), sha256=_sha256(path), winners=tuple(of_image))
        for path, of_image in winners.items()
    ]
    store.write(keys.plan_key(chunk), plan_bytes(lines))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sheet(store: Store, layer: str, unit: int, what: str) -> npt.NDArray[np.int16]:
    with Image.open(io.BytesIO(store.read(keys.atlas_key(layer, unit, what)))) as picture:
        assert picture.format == "WEBP"
        return np.asarray(picture.convert("RGB")).astype(np.int16)


def _network_input(path: Path) -> tuple[npt.NDArray[np.uint8], torch.Tensor]:
    with Image.open(path) as image:
        pixels_HWC = preprocess(image.convert("RGB"), SMALL).pixels_HWC
    return pixels_HWC, StandInEngine().normalise(torch.from_numpy(pixels_HWC)[None])


# What is drawn, and what stands in the record


def test_winners_stand_by_unit_and_rank_and_are_drawn_with_one_scale_a_unit(tmp_path: Path) -> None:
    paths = noise_images(tmp_path, [(40, 40)] * 4)
    store, job = make_audit(tmp_path / "job", paths, TOP3)
    won = {
        paths[2]: [(7, 1, 5.0), (2, 0, 9.5)],
        paths[0]: [(7, 0, 6.0)],
        paths[3]: [(7, 2, 4.0), (2, 1, 9.0)],
    }
    _plan(store, job, won)
    progress: list[tuple[int, int]] = []
    result = run(store, job, 1, on_image=lambda *counts: progress.append(counts))
    assert result == ShardResult(1, 3, 0, committed=True)
    assert progress == [(1, 0), (2, 0), (3, 0)]
    rows = winners_of(store, job)
    assert [(row["unit"], row["rank"]) for row in rows] == [(2, 0), (2, 1), (7, 0), (7, 1), (7, 2)]
    assert [row["image"] for row in rows] == [str(paths[n]) for n in (2, 3, 0, 2, 3)]
    assert [row["activation"] for row in rows] == [9.5, 9.0, 6.0, 5.0, 4.0]
    assert sorted(store.list("atlas/pool1/")) == [
        keys.atlas_key("pool1", unit, what)
        for unit in (2, 7)
        for what in ("controls", "patches", "reconstructions")
    ]
    for unit in (2, 7):
        of_unit = [row for row in rows if row["unit"] == unit]
        signals, patches = np.zeros((3, 6, 18), np.float32), np.full((6, 18, 3), 128, np.uint8)
        for row in of_unit:
            assert (row["status"], row["error"], row["nonfinite"], row["layer"]) == ("ok", None, 0, "pool1")
            pixels_HWC, x_NCHW = _network_input(Path(row["image"]))
            (control,) = Controls().of(StandInEngine().forward_units(x_NCHW, job.layers[0], [[unit]]))
            given = control.reconstruction
            assert (row["y"], row["x"]) == (given.y, given.x)
            assert (row["left"], row["top"], row["right"], row["bottom"]) == given.window
            assert (row["other_unit_similarity"], row["random_weights_similarity"]) == (0.25, -1.0)
            # The crop is the middle 32 of 37 pixels that the image of 40 is shrunk to.
            assert row["source_box"][2] - row["source_box"][0] == pytest.approx(
                (row["right"] - row["left"]) * 40 / 37, abs=0.3
            )
            # Pool 1 sees 6 pixels, from 2 before those that are pooled; each winner has its cell.
            top, left = row["top"] + 2 - 2 * row["y"], row["left"] + 2 - 2 * row["x"] + 6 * row["rank"]
            height, width = row["bottom"] - row["top"], row["right"] - row["left"]
            cell = (slice(top, top + height), slice(left, left + width))
            signals[:, *cell] = given.pixels_CHW.numpy()
            patches[cell] = pixels_HWC[row["top"] : row["bottom"], row["left"] : row["right"]]
        drawn_HWC, scale = display(signals, STD_C)
        assert [row["scale"] for row in of_unit] == [pytest.approx(scale)] * len(of_unit)
        assert np.array_equal(_sheet(store, "pool1", unit, "reconstructions"), drawn_HWC)
        controls_HWC = _sheet(store, "pool1", unit, "controls")
        assert np.array_equal(controls_HWC[:6], display(signals[::-1] / np.float32(2), STD_C)[0])
        assert np.array_equal(controls_HWC[6:], display(-signals, STD_C)[0])
        # Lossy, and noise is the worst for it: but it is that patch, and no other.
        seen_HWC = _sheet(store, "pool1", unit, "patches")
        assert seen_HWC.shape == patches.shape
        assert np.corrcoef(seen_HWC.ravel(), patches.ravel())[0, 1] > 0.6
    metadata = read_table(store, keys.shard_key(1), ATLAS_SCHEMA).schema.metadata
    assert metadata[records.WEIGHTS_METADATA] == b"stand-in " + b"0" * 64
    stages = records.summary_of(metadata)["stages"]
    assert all(stages[stage] > 0 for stage in ("read", "decode", "forward", "project", "encode", "write"))


def test_patches_are_what_the_windows_saw(tmp_path: Path) -> None:
    """A smooth picture, which survives compression: grey beyond its edge, and itself within."""
    path = tmp_path / "smooth.png"
    ramp_HW = np.tile(np.linspace(180, 255, 64, dtype=np.uint8), (64, 1))
    Image.fromarray(np.stack([ramp_HW] * 3, axis=2)).save(path)
    store, job = make_audit(tmp_path / "job", [path], AuditOptions(top=1), layers=("pool4",))
    _plan(store, job, {path: [(0, 0, 1.0)]})
    run(store, job, 1)
    (row,) = winners_of(store, job)
    # The brightest place is the upper right corner
    assert (row["y"], row["x"]) == (0, 1)
    assert (row["left"], row["top"], row["right"], row["bottom"]) == (0, 0, 32, 32)
    patch_HWC = _sheet(store, "pool4", 0, "patches")
    first = Field.of(job.layers[0], "vgg16").first
    top, left = -first, -first - 16
    assert (
        np.abs(patch_HWC[top + 2 : top + 30, left + 2 : left + 30].mean((0, 2))[[0, -1]] - [185, 250]).max()
        < 9
    )
    outside_HWC = patch_HWC.copy()
    outside_HWC[top - 8 : top + 40, left - 8 : left + 40] = 128
    assert np.abs(outside_HWC - 128).max() <= 4


def test_the_real_network_is_asked_for_named_units_and_their_controls(tmp_path: Path) -> None:
    network = Deconvnet.load("random:3", device="cpu")
    paths = photographs()[:2]
    store, job = make_audit(tmp_path / "job", paths, AuditOptions(top=2), layers=("pool2",))
    _plan(store, job, {paths[0]: [(5, 0, 1.0), (40, 1, 0.5)], paths[1]: [(40, 0, 1.0)]})
    run(store, job, 1, network)
    rows = winners_of(store, job)
    x_NCHW = torch.cat([_network_input(path)[1] for path in paths])
    first, second, third = RealControls(network).of(
        network.forward_units(x_NCHW, job.layers[0], [[5, 40], [40]])
    )
    for row, control in zip(rows, (first, third, second), strict=True):
        given = control.reconstruction
        assert (row["unit"], row["y"], row["x"]) == (given.unit, given.y, given.x)
        assert (row["left"], row["top"], row["right"], row["bottom"]) == given.window
        assert row["other_unit_similarity"] == pytest.approx(control.other_unit_similarity, abs=1e-6)
        assert row["random_weights_similarity"] == pytest.approx(control.random_weights_similarity, abs=1e-6)


def test_a_chunk_without_winners_is_an_empty_record(tmp_path: Path) -> None:
    store, job = make_audit(tmp_path / "job", noise_images(tmp_path, [(40, 40)]))
    _plan(store, job, {})
    assert run(store, job, 1) == ShardResult(1, 0, 0, committed=True)
    assert winners_of(store, job) == []
    assert list(store.list("atlas/pool1/")) == []


# Images that are not what they were


def test_an_image_that_changed_or_is_gone_is_failed_winners_and_the_others_are_drawn(tmp_path: Path) -> None:
    paths = noise_images(tmp_path, [(40, 40)] * 4)
    store, job = make_audit(tmp_path / "job", paths, TOP3)
    won = {path: [(1, n, 5.0 - n), (4, 2 - n, 3.0 + n)] for n, path in enumerate(paths[:3])}
    _plan(store, job, won)
    run(store, job, 1)
    whole = winners_of(store, job)
    for name in ("gone", "changed"):
        other, job = make_audit(tmp_path / name, paths, TOP3)
        _plan(other, job, won)
        data = paths[1].read_bytes()
        paths[1].unlink() if name == "gone" else paths[1].write_bytes(paths[3].read_bytes())
        assert run(other, job, 1) == ShardResult(1, 3, 1, committed=True)
        rows = winners_of(other, job)
        for row, before in zip(rows, whole, strict=True):
            known = {
                name: row[name] for name in ("layer", "unit", "rank", "image", "image_key", "activation")
            }
            assert known.items() <= before.items()
            if row["image"] == str(paths[1]):
                assert (row["status"], row["error"], row["y"], row["left"]) == (
                    "failed",
                    "ImageNotFound",
                    None,
                    None,
                )
                assert "changed" in row["message"] or name == "gone"
            else:
                assert {**row, "scale": 0} == {**before, "scale": 0}
        sheet = _sheet(other, "pool1", 1, "reconstructions")
        assert (sheet[:, 6:12] == 128).all()
        assert (sheet[:, :6] != 128).any()
        assert (_sheet(other, "pool1", 1, "controls")[:, 6:12] == 128).all()
        assert run(other, job, 1) == ShardResult(1, 3, 1, committed=False)
        paths[1].write_bytes(data)


# How it is worked on


def _many_winners(paths: Sequence[Path]) -> dict[Path, list[tuple[int, int, float]]]:
    """Three winners for each of sixteen units; every image wins at many of them."""
    won: dict[Path, list[tuple[int, int, float]]] = {path: [] for path in paths}
    for unit in range(16):
        for rank in range(3):
            won[paths[(unit * 5 + rank) % len(paths)]].append((unit, rank, 9.0 - rank))
    return won


def test_groups_parts_batches_and_memory_change_nothing_of_the_atlas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = noise_images(tmp_path, [(50 + 9 * (n % 3), 70) for n in range(7)])

    def atlas(
        name: str, engine: StandInEngine, batch_size: int
    ) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
        store, job = make_audit(
            tmp_path / name, paths, TOP3, layers=("pool2",), preprocessing=FIT, batch_size=batch_size
        )
        _plan(store, job, _many_winners(paths))
        run(store, job, 1, engine)
        return winners_of(store, job), objects_of(store, "atlas/pool2/")

    whole = atlas("whole", engine := StandInEngine(), 4)
    assert len(whole[0]) == 48
    assert len(whole[1]) == 48
    n_images = sum(n for n, _, _ in engine.batches)
    assert n_images == 7
    # Given room for the cells of five units, and for four windows at a time
    cell_bytes = 13 * 3 * 16**2
    monkeypatch.setattr("worker.pipeline.atlas.MAX_CELL_BYTES", 5 * 3 * cell_bytes)
    monkeypatch.setattr("worker.pipeline.winners.MAX_WINDOW_BYTES", 4 * 3 * 4 * 3 * 16**2)
    asked: list[int] = []
    really_of = Controls.of

    def counting(self: Controls, ascent: UnitAscent) -> list[Control]:
        asked.append(len(ascent.winners))
        return really_of(self, ascent)

    monkeypatch.setattr(Controls, "of", counting)
    engine = StandInEngine(fits=2)
    assert atlas("bounded", engine, 4) == whole
    assert max(asked) <= 4
    assert {n for n, _, _ in engine.batches} <= {1, 2}
    assert sum(n for n, _, _ in engine.batches) > n_images  # images that win in several groups go up again


def test_a_careful_atlas_is_one_image_at_a_time_and_leaves_the_quarantined_alone(tmp_path: Path) -> None:
    paths = noise_images(tmp_path, [(40, 40)] * 4)
    store, job = make_audit(tmp_path / "job", paths, TOP3)
    _plan(store, job, {path: [(1, n, 5.0 - n)] for n, path in enumerate(paths[:3])})
    engine, started = StandInEngine(), list[int | None]()
    caution = Caution(frozenset({0}), frozenset({1}), started.append)
    assert run(store, job, 1, engine, caution=caution).n_failed == 1
    assert started == [2, 0, None]
    assert [n for n, _, _ in engine.batches] == [1, 1]
    assert [row["status"] for row in winners_of(store, job)] == ["ok", "quarantined", "ok"]


def test_an_atlas_that_does_not_fit_the_memory_is_failed_winners(tmp_path: Path) -> None:
    paths = noise_images(tmp_path, [(40, 40)] * 3)
    store, job = make_audit(tmp_path / "job", paths, TOP3)
    _plan(store, job, {path: [(1, n, 5.0 - n)] for n, path in enumerate(paths)})
    assert run(store, job, 1, StandInEngine(fits=0)) == ShardResult(1, 3, 3, committed=True)
    rows = winners_of(store, job)
    assert {row["error"] for row in rows} == {"ImageTooLarge"}
    assert [row["scale"] for row in rows] == [0, 0, 0]


def test_an_atlas_that_the_audit_does_not_have_is_refused(tmp_path: Path) -> None:
    store, job = make_audit(tmp_path / "job", noise_images(tmp_path, [(40, 40)]))
    for assignment in (Assignment(0), Assignment(2), Assignment(1, attempt=1)):
        with pytest.raises(JobError, match="1 atlas shards from 1 on"):
            run_atlas(store, job, assignment, StandInEngine(), LIMITS, lambda *_: None)
    ordinary = job.model_copy(update={"audit": None})
    with pytest.raises(JobError, match="0 atlas shards"):
        run_atlas(store, ordinary, Assignment(1), StandInEngine(), LIMITS, lambda *_: None)
    with pytest.raises(ObjectNotFound, match="plan"):
        run(store, job, 1)
