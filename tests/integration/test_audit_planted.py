"""Audits of half a thousand photographs by the real network: what was planted is found, and nothing else.

No worker processes here: the passes run one after the other, as workers run them.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests import planted
from tests.unit.audits import make_audit, run_whole
from worker.audit.reading import read_table
from worker.contract import keys
from worker.contract.audit_tables import FINDINGS_SCHEMA
from worker.contract.audits import AuditOptions
from worker.contract.jobs import Preprocessing
from worker.deconv import Deconvnet
from worker.deconv.weights import load_weights
from worker.storage import Store

pytestmark = pytest.mark.timeout(600)

LAYER = "pool2"
DEAD_UNIT = 17
TOP = 1
INPUT_PX = 48
Found = dict[str, set[str]]


@pytest.fixture(scope="module")
def net() -> Deconvnet:
    """Untrained kernels, with those of one unit zeroed."""
    weights = load_weights("random:0", "vgg16", None)
    state = dict(weights.state)
    for part in ("weight", "bias"):
        name = f"7.{part}"  # conv2_2, below pool2
        state[name] = state[name].clone()
        state[name][DEAD_UNIT] = 0
    return Deconvnet(replace(weights, state=state))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audits")


@pytest.fixture(scope="module")
def sets(folder: Path) -> tuple[list[Path], list[Path]]:
    """Two clean sets, of the same photographs."""
    first, second = planted.halves(planted.textured(planted.patches()))
    return planted.save(folder / "first", first), planted.save(folder / "second", second)


def audit(net: Deconvnet, place: Path, images: Sequence[Path], baseline: Store | None = None) -> Store:
    options = AuditOptions(top=TOP, baseline=None if baseline is None else baseline.place)
    small = Preprocessing(resize="fit", size_px=INPUT_PX)
    store, job = make_audit(place, images, options, layers=[LAYER], preprocessing=small, shard_size=200)
    run_whole(store, job, net)
    return store


def findings(store: Store) -> Found:
    """Subjects by kind; an image by its file's name."""
    found: Found = defaultdict(set)
    for row in read_table(store, keys.FINDINGS, FINDINGS_SCHEMA).to_pylist():
        found[row["kind"]].add(Path(row["subject"]).name)
    return dict(found)


@pytest.fixture(scope="module")
def clean(net: Deconvnet, folder: Path, sets: tuple[list[Path], list[Path]]) -> Store:
    return audit(net, folder / "audit-clean", sets[0])


def test_everything_planted_is_found_and_named(
    net: Deconvnet, folder: Path, sets: tuple[list[Path], list[Path]], clean: Store
) -> None:
    spoilt = folder / "spoilt"
    shutil.copytree(folder / "first", spoilt)
    names = sorted(path.name for path in sets[0])
    assert len(names) >= 500
    copied, resaved, cut = names[10], names[160], names[300]
    shutil.copy(spoilt / copied, spoilt / "a-copy.png")
    with Image.open(spoilt / resaved) as image:
        (spoilt / "resaved.jpg").write_bytes(planted.jpeg(image, 95))
    planted.noise(0).save(spoilt / "noise.png")
    (spoilt / cut).write_bytes((spoilt / cut).read_bytes()[:1500])

    found = findings(audit(net, folder / "audit-spoilt", sorted(spoilt.iterdir())))
    before = findings(clean)
    new = {kind: subjects - before.get(kind, set()) for kind, subjects in found.items()}
    assert new.pop("decode-fault") == {cut}
    assert new.pop("exact-duplicate") & {copied, "a-copy.png"}
    assert new.pop("near-duplicate") & {resaved, "resaved.jpg"}
    assert "noise.png" in new.pop("outlier")
    assert f"{LAYER}:{DEAD_UNIT}" in found["dead-unit"]
    assert not any(new.values()), new


def test_of_two_clean_sets_nothing_is_said(
    net: Deconvnet,
    folder: Path,
    sets: tuple[list[Path], list[Path]],
    clean: Store,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = findings(audit(net, folder / "audit-second", sets[1], clean))
    assert found.pop("image-added") == found.pop("image-removed") == {"audit"}
    # Of patches of one wall some are alike, and some are unlike all others: true of photographs.
    alike, unusual = found.pop("near-duplicate", set()), found.pop("outlier", set())
    with capsys.disabled():
        print(f"\nclean pair: {len(alike)} groups of near-duplicates, outliers: {sorted(unusual)}")
    assert not found


def test_a_drifted_set_is_told_from_a_clean_one(
    net: Deconvnet, folder: Path, sets: tuple[list[Path], list[Path]], clean: Store
) -> None:
    _, second = planted.halves(planted.textured(planted.patches()))
    images = planted.save(folder / "drifted", planted.drifted(second))
    found = findings(audit(net, folder / "audit-drifted", images, clean))
    assert any(subject.startswith(LAYER) for subject in found["drift"])
