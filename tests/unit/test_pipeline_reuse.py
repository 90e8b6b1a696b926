"""An incremental scan: what a baseline has already is neither decoded nor computed, and is the same."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.unit.audits import conclude, make_audit, profiles_of, run, run_whole
from tests.unit.shards import FIT
from tests.unit.standin import StandInEngine, noise_images
from worker.audit.reading import read_table
from worker.contract import keys, records
from worker.contract.audit_tables import IMAGES_SCHEMA
from worker.contract.audits import AuditOptions
from worker.contract.errors import JobError
from worker.pipeline import Caution, ShardResult, decode
from worker.pipeline.scan import COMPUTED_METADATA
from worker.storage import Store

LAYERS = ("pool1", "conv2_1", "pool3")
TABLES = (keys.STATISTICS, keys.UNITS, keys.IMAGES, keys.ATLAS, keys.FINDINGS)


def _n_computed(store: Store, shard: int = 0) -> int:
    metadata = pq.read_schema(Path(store.place) / keys.shard_key(shard)).metadata
    return int(metadata[COMPUTED_METADATA])


def _count_decodings(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    really_decode = decode.decode_image
    decoded: list[bytes] = []

    def counting(data: bytes, max_pixels: int) -> object:
        decoded.append(data)
        return really_decode(data, max_pixels)

    monkeypatch.setattr("worker.pipeline.loading.decode_image", counting)
    return decoded


def test_an_incremental_scan_computes_what_is_new_and_equals_a_full_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a finished audit, of which one image could not be used
    paths = noise_images(tmp_path, [(50 + n % 3, 70) for n in range(12)])
    whole = paths[2].read_bytes()
    paths[2].write_bytes(b"broken")
    base, base_job = make_audit(tmp_path / "base", paths[:10], layers=LAYERS, shard_size=3)
    run_whole(base, base_job)
    # When that is mended, one has changed, one is gone, two are new, and all stand in another order
    paths[2].write_bytes(whole)
    paths[5].write_bytes(paths[6].read_bytes())
    paths[8].unlink()
    paths.reverse()
    options = AuditOptions(baseline=str(tmp_path / "base"))
    engine = StandInEngine()
    decoded = _count_decodings(monkeypatch)
    store, job = make_audit(tmp_path / "job", paths, options, layers=LAYERS, shard_size=5)
    progress: list[tuple[int, int]] = []
    for shard in range(job.n_shards):
        run(store, job, shard, engine, on_image=lambda *counts: progress.append(counts))
    # Then four were computed, and the one that is gone is a failed row of its own
    assert sum(n for n, _, _ in engine.batches) == len(decoded) == 4
    assert sum(_n_computed(store, shard) for shard in range(job.n_shards)) == 5
    assert [done for done, _ in progress] == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2]
    # and the rows are those of a scan of everything
    full, full_job = make_audit(
        tmp_path / "full", paths, options.model_copy(update={"recompute": True}), layers=LAYERS, shard_size=5
    )
    for shard in range(job.n_shards):
        run(full, full_job, shard)
        assert profiles_of(store, job, shard).equals(profiles_of(full, full_job, shard))
    assert [_n_computed(full, shard) for shard in range(job.n_shards)] == [5, 5, 2]
    # and so are all tables, byte for byte
    conclude(store, job)
    conclude(full, full_job)
    for table in TABLES:
        assert store.read(table) == full.read(table), table


def test_where_nothing_is_new_nothing_is_computed(tmp_path: Path) -> None:
    paths = noise_images(tmp_path, [(40, 40)] * 4)
    base, base_job = make_audit(tmp_path / "base", paths)
    run_whole(base, base_job)
    engine = StandInEngine()
    store, job = make_audit(tmp_path / "job", paths, AuditOptions(baseline=str(tmp_path / "base")))
    assert run(store, job, 0, engine) == ShardResult(0, 4, 0, committed=True)
    assert engine.batches == []
    assert profiles_of(store, job).equals(profiles_of(base, base_job))


def test_an_image_that_may_have_killed_is_not_read_to_compare_it(tmp_path: Path) -> None:
    paths = noise_images(tmp_path, [(40, 40)] * 4)
    base, base_job = make_audit(tmp_path / "base", paths)
    run_whole(base, base_job)
    engine, started = StandInEngine(), list[int | None]()
    store, job = make_audit(tmp_path / "job", paths, AuditOptions(baseline=str(tmp_path / "base")))
    run(store, job, 0, engine, caution=Caution(frozenset({1}), frozenset({2}), started.append))
    assert started == [1, None]
    assert sum(n for n, _, _ in engine.batches) == 1
    assert profiles_of(store, job)["status"].to_pylist() == ["ok", "ok", "quarantined", "ok"]


def test_a_baseline_of_another_network_or_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    paths = noise_images(tmp_path, [(40, 40)] * 4)
    base, base_job = make_audit(tmp_path / "base", paths)
    run_whole(base, base_job)
    options = AuditOptions(baseline=str(tmp_path / "base"))
    store, job = make_audit(tmp_path / "fit", paths, options, preprocessing=FIT)
    with pytest.raises(JobError, match="preprocessing"):
        run(store, job, 0)
    # The baseline's list of images names bytes that its record knows nothing of
    broken = tmp_path / "broken"
    copy, copy_job = make_audit(broken, paths)
    run_whole(copy, copy_job)
    images = read_table(copy, keys.IMAGES, IMAGES_SCHEMA)
    paths[1].write_bytes(paths[0].read_bytes())
    column = images.schema.get_field_index("source_sha256")
    hashes = images["source_sha256"].to_pylist()
    images = images.set_column(column, images.schema.field(column), [[hashes[0], hashes[0], *hashes[2:]]])
    copy.write(keys.IMAGES, records.to_parquet(images, images.schema.metadata))
    store, job = make_audit(tmp_path / "job", paths, AuditOptions(baseline=str(broken)))
    with pytest.raises(JobError, match="do not say the same"):
        run(store, job, 0)
