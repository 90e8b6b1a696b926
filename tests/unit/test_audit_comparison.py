"""An audit against an earlier one: what was planted is found, and two samples of one set are alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.audit_records import (
    WEIGHTS,
    Scan,
    audit_job,
    finish_all,
    layers_named,
    make_audit,
    synthetic_scan,
    write_atlas,
    write_scan,
)
from tests.memory_store import MemoryStore
from worker.audit import finish_audit, merge_scan, open_baseline
from worker.audit.histogram import kolmogorov_smirnov_limit
from worker.contract import keys
from worker.contract.architectures import Layer
from worker.contract.errors import JobError
from worker.contract.jobs import Preprocessing, Request
from worker.storage import open_store

Row = dict[str, Any]
(POOL1, POOL2) = layers_named(["pool1", "pool2"])


def audited(folder: Path, scan: Scan, baseline: Path | None = None, top: int = 9) -> Path:
    """Audit into `folder`."""
    store = open_store(folder)
    job = audit_job(
        store, scan, shard_size=100, top=top, baseline=None if baseline is None else str(baseline)
    )
    write_scan(store, job, scan)
    finish_all(store, job)
    return folder


def rows_of(folder: Path, key: str) -> list[Row]:
    with (folder / key).open("rb") as file:
        rows: list[Row] = pq.ParquetFile(file).read().to_pylist()
    return rows


def found(folder: Path) -> list[tuple[str, str]]:
    """The findings, but for the counts of images that are in only one of the two."""
    findings = [(row["kind"], row["subject"]) for row in rows_of(folder, keys.FINDINGS)]
    return [finding for finding in findings if finding[0] not in ("image-added", "image-removed")]


def pair(
    tmp_path: Path,
    change: Callable[[Scan], None],
    before: Callable[[Scan], None] = lambda _: None,
    n_images: int = 300,
) -> Path:
    """Two audits of different images; `change` plants something in the second one, `before` in the first."""
    scans = [synthetic_scan(("pool1", "pool2"), n_images, seed) for seed in (1, 2)]
    before(scans[0])
    change(scans[1])
    baseline = audited(tmp_path / "baseline", scans[0])
    return audited(tmp_path / "now", scans[1], baseline)


def times(layer: Layer, unit: int, factor: float) -> Callable[[Scan], None]:
    def change(scan: Scan) -> None:
        scan.peaks[layer][:, unit] *= np.float32(factor)

    return change


def firing_in(n: int, unit: int = 5) -> Callable[[Scan], None]:
    """Make `n` images fire the unit, and no others."""

    def change(scan: Scan) -> None:
        scan.set_peaks(slice(None), POOL1, unit, 0)
        scan.set_peaks(slice(0, n), POOL1, unit, 3)

    return change


def nothing(_: Scan) -> None:
    """Plant nothing."""


def test_twenty_pairs_of_samples_of_one_set_find_nothing(tmp_path: Path) -> None:
    baseline = None
    for seed in range(21):
        scan = synthetic_scan(("pool1", "pool5"), 500, seed)
        baseline = audited(tmp_path / str(seed), scan, baseline, top=1)
        assert found(baseline) == []


def test_a_drifted_unit_is_named_and_no_other(tmp_path: Path) -> None:
    now = pair(tmp_path, times(POOL2, 17, 2))
    assert found(now) == [("drift", "pool2:17")]
    (finding,) = [row for row in rows_of(now, keys.FINDINGS) if row["kind"] == "drift"]
    (unit,) = [row for row in rows_of(now, keys.UNITS) if row["layer"] == "pool2" and row["unit"] == 17]
    assert finding["number"] == unit["psi"]
    assert finding["why"].startswith("its peaks are distributed otherwise: stability index ")


def test_a_difference_that_only_very_many_images_show_is_no_drift(tmp_path: Path) -> None:
    scans = [synthetic_scan(("pool1",), 4000, seed) for seed in (1, 2)]
    times(POOL1, 17, 1.08)(scans[1])
    now = audited(tmp_path / "now", scans[1], audited(tmp_path / "baseline", scans[0], top=1), top=1)
    unit = rows_of(now, keys.UNITS)[17]
    assert unit["ks"] > kolmogorov_smirnov_limit(4000, 4000, 0.01 / 64)
    assert found(now) == []


def test_a_difference_that_few_images_show_by_chance_is_no_drift(tmp_path: Path) -> None:
    now = pair(tmp_path, nothing, n_images=20)
    assert max(row["psi"] for row in rows_of(now, keys.UNITS)) > 1
    assert found(now) == []


def test_a_grave_drift_is_an_error(tmp_path: Path) -> None:
    now = pair(tmp_path, times(POOL2, 17, 50))
    findings = [row for row in rows_of(now, keys.FINDINGS) if row["kind"] == "drift"]
    assert [(row["severity"], row["subject"]) for row in findings] == [("error", "pool2:17")]


def test_a_layer_that_drifted_altogether_is_one_finding_that_names_the_gravest(tmp_path: Path) -> None:
    def brighten(scan: Scan) -> None:
        scan.peaks[POOL2][:, 30:70] += np.float32(50)

    now = pair(tmp_path, brighten)
    (finding,) = [row for row in rows_of(now, keys.FINDINGS) if row["kind"] == "drift"]
    assert (finding["subject"], finding["number"]) == ("pool2", 40)
    psi = {row["unit"]: row["psi"] for row in rows_of(now, keys.UNITS) if row["layer"] == "pool2"}
    gravest = sorted(psi, key=lambda unit: -psi[unit])[:3]
    assert ", ".join(f"pool2:{unit}" for unit in gravest) in finding["why"]


def test_a_unit_that_no_longer_fires_is_newly_dead(tmp_path: Path) -> None:
    assert ("newly-dead", "pool1:5") in found(pair(tmp_path, firing_in(0)))


def test_a_unit_that_fires_again_is_revived(tmp_path: Path) -> None:
    assert ("revived", "pool1:5") in found(pair(tmp_path, nothing, firing_in(0)))


@pytest.mark.parametrize(("then", "now"), [(6, 0), (0, 6)])
def test_a_unit_that_hardly_ever_fires_is_no_finding_when_it_does_not(
    tmp_path: Path, then: int, now: int
) -> None:
    assert found(pair(tmp_path, firing_in(now), firing_in(then))) == []


def test_a_unit_that_was_dead_before_is_no_finding(tmp_path: Path) -> None:
    assert found(pair(tmp_path, firing_in(0), firing_in(0))) == []


def test_images_that_are_other_new_or_gone_are_counted_and_named(tmp_path: Path) -> None:
    scans = [synthetic_scan(("pool1",), n_images, seed=1) for n_images in (60, 62)]
    second = scans[1]
    for layer in scans[0].peaks:
        second.peaks[layer][:60], second.firing[layer][:60] = scans[0].peaks[layer], scans[0].firing[layer]
    second.sha256[3] = "a" * 64
    second.images[10] = "photos/other.jpg"
    second.errors[4] = ("ImageUnreadable", "broken")
    now = audited(tmp_path / "now", second, audited(tmp_path / "baseline", scans[0]))
    findings = {row["kind"]: row for row in rows_of(now, keys.FINDINGS)}
    assert set(findings) == {"decode-fault", "image-changed", "image-added", "image-removed"}
    assert findings["image-changed"]["subject"] == second.images[3]
    assert (findings["image-added"]["subject"], findings["image-added"]["number"]) == ("audit", 3)
    assert second.images[10] in findings["image-added"]["why"]
    assert findings["image-removed"]["number"] == 1
    assert scans[0].images[10] in findings["image-removed"]["why"]


def test_many_changed_images_are_one_finding(tmp_path: Path) -> None:
    scan = synthetic_scan(("pool1",), 40, seed=1)
    baseline = audited(tmp_path / "baseline", scan)
    scan.sha256[:21] = [f"{number:064x}" for number in range(21)]
    (finding,) = rows_of(audited(tmp_path / "now", scan, baseline), keys.FINDINGS)
    assert (finding["kind"], finding["subject"], finding["number"]) == ("image-changed", "audit", 21)


def grown(seed: int, n_new: int) -> tuple[Scan, Scan]:
    """A scan, and the same with as many new images after it."""
    old, new = synthetic_scan(("pool1",), 300, seed), synthetic_scan(("pool1",), n_new, seed + 1)
    both = Scan(
        images=old.images + new.images,
        sha256=old.sha256 + new.sha256,
        difference_hash=np.concatenate([old.difference_hash, new.difference_hash]),
        peaks={layer: np.concatenate([old.peaks[layer], new.peaks[layer]]) for layer in old.peaks},
        firing={layer: np.concatenate([old.firing[layer], new.firing[layer]]) for layer in old.firing},
    )
    return old, both


def test_new_images_that_take_over_the_top_of_a_unit_are_a_finding(tmp_path: Path) -> None:
    old, both = grown(0, n_new=15)
    greatest = both.peaks[POOL1][:, 5].max()
    both.set_peaks(slice(300, 308), POOL1, 5, float(greatest) + 1)
    now = audited(tmp_path / "now", both, audited(tmp_path / "baseline", old))
    assert found(now) == [("top-turnover", "pool1:5")]
    assert rows_of(now, keys.UNITS)[5]["top_turnover"] == 8 / 9


@pytest.mark.parametrize("n_new", [3, 30, 300])
def test_as_many_new_top_images_as_there_are_new_images_are_no_finding(tmp_path: Path, n_new: int) -> None:
    old, both = grown(10, n_new)
    now = audited(tmp_path / "now", both, audited(tmp_path / "baseline", old))
    assert found(now) == []
    turnover = [row["top_turnover"] for row in rows_of(now, keys.UNITS)]
    assert np.mean(turnover) == pytest.approx(n_new / (300 + n_new), rel=0.3)


def test_images_that_move_up_because_others_have_gone_are_no_finding(tmp_path: Path) -> None:
    fewer, both = grown(10, n_new=30)
    now = audited(tmp_path / "now", fewer, audited(tmp_path / "baseline", both))
    assert any(row["top_turnover"] for row in rows_of(now, keys.UNITS))
    assert found(now) == []


def test_turnover_compares_as_many_top_images_as_both_audits_have(tmp_path: Path) -> None:
    scan = synthetic_scan(("pool1",), 40, seed=1)
    now = audited(tmp_path / "now", scan, audited(tmp_path / "baseline", scan, top=3), top=9)
    assert {row["top_turnover"] for row in rows_of(now, keys.UNITS)} == {0}
    assert found(now) == []


def test_the_same_images_have_neither_drifted_nor_turned_over(tmp_path: Path) -> None:
    scan = synthetic_scan(("pool1",), 40, seed=1)
    now = audited(tmp_path / "now", scan, audited(tmp_path / "baseline", scan))
    rows = rows_of(now, keys.UNITS)
    assert {(row["psi"], row["ks"], row["top_turnover"]) for row in rows} == {(0, 0, 0)}


def test_without_a_baseline_nothing_is_compared(tmp_path: Path) -> None:
    rows = rows_of(audited(tmp_path / "now", synthetic_scan(("pool1",), 10, seed=1)), keys.UNITS)
    assert {(row["psi"], row["ks"], row["top_turnover"]) for row in rows} == {(None, None, None)}


@pytest.mark.parametrize("broken", ["baseline", "now"])
def test_an_audit_of_broken_images_alone_cannot_drift(tmp_path: Path, broken: str) -> None:
    def break_all(scan: Scan) -> None:
        scan.errors = dict.fromkeys(range(30), ("ImageUnreadable", "broken"))

    change, before = (break_all if broken == name else nothing for name in ("now", "baseline"))
    now = pair(tmp_path, change, before, n_images=30)
    assert {kind for kind, _ in found(now)} <= {"decode-fault"}
    assert {(row["psi"], row["ks"]) for row in rows_of(now, keys.UNITS)} == {(None, None)}


def test_what_is_so_of_the_network_itself_is_said_only_without_a_baseline(tmp_path: Path) -> None:
    scan = synthetic_scan(("pool1",), 40, seed=1)
    scan.set_peaks(slice(None), POOL1, 5, 0)
    baseline = audited(tmp_path / "baseline", scan)
    assert found(baseline) == [("dead-unit", "pool1:5")]
    assert found(audited(tmp_path / "now", scan, baseline)) == []


def refusal(tmp_path: Path, request: Request | None = None, weights: str = WEIGHTS) -> str:
    """What is said of a baseline that was made otherwise."""
    scan = synthetic_scan(("pool1", "pool2"), 10, seed=1)
    folder = open_store(tmp_path / "baseline")
    make_audit(folder, layers=("pool1", "pool2"), n_images=10)
    store = MemoryStore()
    job = audit_job(store, scan, baseline=str(tmp_path / "baseline"), request=request)
    with pytest.raises(JobError) as raised:
        open_baseline(job, weights.encode())
    message = str(raised.value)
    assert "\n" not in message
    return message.replace(folder.place, "BASELINE").replace(job.id, "JOB")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"model": "vgg19"}, "other network than job JOB (vgg16, not vgg19)"),
        ({"precision": "bf16"}, "other precision than job JOB (fp32, not bf16)"),
        ({"specs": ("pool1:max",)}, "other layers than job JOB (pool1, pool2, not pool1)"),
        (
            {"preprocessing": Preprocessing(resize="fit")},
            "other preprocessing than job JOB (resize='crop' size_px=224, not resize='fit' size_px=224)",
        ),
    ],
)
def test_a_baseline_of_other_settings_is_refused(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    request = Request(specs=("pool1:max", "pool2:max")).model_copy(update=change)
    expected = f"baseline BASELINE has {what}: compare audits of one and the same network"
    assert refusal(tmp_path, request) == expected


def test_a_baseline_of_other_weights_is_refused_and_those_of_another_path_are_not(tmp_path: Path) -> None:
    assert "has other weights than job JOB (555" in refusal(tmp_path, weights=f"/x.pth {'6' * 64}")
    job = audit_job(
        MemoryStore(),
        synthetic_scan(("pool1", "pool2"), 10, seed=1),
        baseline=str(tmp_path / "baseline"),
    )
    baseline = open_baseline(job, f"/elsewhere.pth {'5' * 64}".encode())
    assert baseline is not None
    assert (baseline.job.n_images, len(baseline.units)) == (10, 64 + 128)


def test_a_place_without_a_finished_audit_is_no_baseline(tmp_path: Path) -> None:
    scan = synthetic_scan(("pool1",), 10, seed=1)
    job = audit_job(MemoryStore(), scan, baseline=str(tmp_path))
    with pytest.raises(JobError, match="holds no job: name the place of a finished audit"):
        open_baseline(job, WEIGHTS.encode())
    store = open_store(tmp_path)
    unfinished = make_audit(store, layers=("pool1",), finish=False)
    with pytest.raises(JobError, match="is not finished: name the place of a finished audit"):
        open_baseline(job, WEIGHTS.encode())
    store.write(keys.JOB, unfinished.model_copy(update={"audit": None}).to_json())
    with pytest.raises(JobError, match="is no audit: name the place of a finished audit"):
        open_baseline(job, WEIGHTS.encode())


def test_an_audit_that_cannot_be_compared_writes_no_table(tmp_path: Path) -> None:
    store = MemoryStore()
    job = make_audit(store, layers=("pool1",), baseline=str(tmp_path), finish=False)
    merge_scan(store, job)
    write_atlas(store, job)
    with pytest.raises(JobError, match="holds no job"):
        finish_audit(store, job)
    assert not store.exists(keys.UNITS)


def test_a_job_without_a_baseline_has_none() -> None:
    store = MemoryStore()
    assert open_baseline(make_audit(store, layers=("pool1",), finish=False), WEIGHTS.encode()) is None
