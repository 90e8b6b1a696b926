"""The blocks of README and docs/ run as they stand, but for what the two tables here say."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import duckdb
import promql_parser
import pytest
import redis

from tests.docs_stage import BUCKET, PRELUDE, Stage, stage
from tests.documents import ROOT, Block, blocks, table
from tests.length import at_length
from tests.ports import free_port
from worker.contract import keys

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

CANNOT_RUN = {
    (
        "docs/operations.md",
        "cd docker",
    ): "needs Docker; tests/unit/test_docker.py looks at the commands in it",
    ("docs/operations.md", "docker build -f docker/Dockerfile --target worker"): "needs Docker and a cluster",
}
"""Blocks that are only read for their syntax, by document and first words, and why."""


def substitutions(on: Stage) -> Mapping[str, str]:
    """What stands in a block, and what is meant here; in this order."""
    ids = on.ids
    folder = str(on.folder)
    return {
        "redis://queue:6379/0": on.environment["DECONVOY_REDIS_URL"],
        "/shared/results/photos-1a2b3c4d5e": f"{folder}/shared/results/{ids[f'{folder}/shared/results']}",
        "s3://bucket/photos-1a2b3c4d5e": f"s3://bucket/{ids[f's3://{BUCKET}']}",
        "audits/photos-1a2b3c4d5e": f"audits/{ids[f'{folder}/audits']}",
        "results/photos-1a2b3c4d5e": f"results/{ids[f'{folder}/results']}",
        "/shared/": f"{folder}/shared/",
        "/data/": f"{folder}/data/",
        "--metrics-port 9100": f"--metrics-port {free_port()}",
        "--layer pool4 --layer pool5": "--layer pool1",
        "--layer pool5": "--layer pool1",
        'weights="hed", specs': 'weights="random:0", size_px=32, specs',
        'layers=["pool5"]': 'layers=["pool1"], weights="random:0", size_px=32',
    }


def runnable(*languages: str) -> list[Block]:
    return [block for block in blocks(*languages) if not cannot_run(block)]


def cannot_run(block: Block) -> bool:
    return any(block.document == name and block.code.startswith(start) for name, start in CANNOT_RUN)


def as_meant(code: str, on: Stage) -> str:
    for written, meant in substitutions(on).items():
        # A path that was put in is not looked into again.
        start = r"(?<![\w/])" if written.startswith("/") else ""
        code = re.sub(start + re.escape(written), meant.replace("\\", r"\\"), code)
    return code


@pytest.fixture(scope="module")
def on() -> Iterator[Stage]:
    with stage() as ready:
        yield ready


@pytest.mark.parametrize("block", runnable("bash"), ids=str)
def test_commands_run_as_they_stand(block: Block, on: Stage) -> None:
    ran = on.run("bash", "-c", PRELUDE + as_meant(block.code, on))
    assert ran.returncode == 0, ran.stdout
    assert "Traceback" not in ran.stdout


RUNNER = """
import json, sys
for name, code in json.load(open(sys.argv[1])):
    exec(compile(code, name, "exec"), {"__name__": "__main__"})
"""


@pytest.mark.parametrize("document", sorted({block.document for block in runnable("python")}))
def test_python_runs_as_it_stands(document: str, on: Stage) -> None:
    """Each block in a namespace of its own; the blocks of a page in one process, which loads torch once."""
    found = [
        (str(block), as_meant(block.code, on)) for block in runnable("python") if block.document == document
    ]
    (on.folder / "blocks.json").write_text(json.dumps(found), encoding="utf-8")
    ran = on.run(sys.executable, "-P", "-c", RUNNER, "blocks.json")
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("block", runnable("sql"), ids=str)
def test_sql_runs_as_it_stands(block: Block, on: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(on.folder)
    with duckdb.connect() as connection:
        rows = connection.execute(block.code).fetchall()
    if "strongest" in block.code:
        # Each of the two photographs has one strongest activation, in each job of the folder.
        n_images = sum(row[2] for row in rows if row[0] == "pool5")
        assert n_images >= 2
        assert n_images % 2 == 0
    else:
        assert rows == []


@pytest.mark.parametrize("block", runnable("promql"), ids=str)
def test_queries_of_prometheus_parse(block: Block) -> None:
    for query in block.code.splitlines():
        promql_parser.parse(query)


@pytest.mark.parametrize("block", [*blocks("bash")], ids=str)
def test_commands_that_cannot_run_here_are_at_least_bash(block: Block) -> None:
    checked = subprocess.run(["bash", "-n"], input=block.code, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_what_is_said_to_be_unable_to_run_or_to_be_meant_otherwise_stands_in_a_block(on: Stage) -> None:
    starts = [(name, start) for name, start in CANNOT_RUN]
    assert [
        (name, start)
        for name, start in starts
        if not any(b.document == name and b.code.startswith(start) for b in blocks("bash"))
    ] == []
    code = "".join(block.code for block in runnable("bash", "python", "sql"))
    assert [written for written in substitutions(on) if written not in code] == []


def tree(document: str) -> list[str]:
    """The files of a job's tree as patterns: … is anything."""
    [block] = [
        block for block in blocks("text") if block.document == document and "\n  job.json" in block.code
    ]
    names = [
        name
        for line in block.code.splitlines()[1:]
        for name in re.split(r"\s{2,}", line.strip())[0].split(", ")
    ]
    return [name.replace("…", "*") for name in names]


def test_the_tree_of_a_job_is_what_lies_there(on: Stage) -> None:
    out = f"{on.folder}/results"
    job = Path(out, on.ids[out])
    lie = {path.relative_to(job).as_posix() for path in job.rglob("*") if path.is_file()}
    patterns = tree("docs/output.md")
    # What this job, which is of layout files and was neither cancelled nor tried again, does not have.
    others = {keys.CANCELLED, keys.retry_key(1), keys.retry_shard_key(1, 0), keys.tar_key(0, "0" * 64)}
    assert [pattern for pattern in patterns if not fnmatch.filter(lie | others, pattern)] == []
    assert {name.split("/")[0] for name in lie} <= {pattern.split("/")[0] for pattern in patterns}


def test_every_key_that_all_this_has_left_in_redis_is_documented(on: Stage) -> None:
    named = re.findall(
        r"`(deconvoy:[^`]+)`", " ".join(row[0] for row in table("docs/queue.md", "## Keys in Redis"))
    )
    patterns = [re.sub(r"(JOB|WORKER|NAME)$", "*", name) for name in named]
    with redis.Redis.from_url(on.environment["DECONVOY_REDIS_URL"], decode_responses=True) as client:
        left = set(map(str, client.scan_iter(count=1000)))
    assert "deconvoy:jobs" in left
    assert len([key for key in left if key.startswith("deconvoy:progress:")]) >= len(on.ids)
    assert [key for key in left if not any(fnmatch.fnmatch(key, pattern) for pattern in patterns)] == []


@at_length
@pytest.mark.timeout(1800)
def test_make_demo_does_what_the_readme_shows(tmp_path: Path) -> None:
    made = subprocess.run(
        ["make", "demo", f"OUT={tmp_path}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    page = Path(made.stdout.splitlines()[-1])
    assert page.is_relative_to(tmp_path)
    job = page.parents[1]
    lie = {path.relative_to(job).as_posix() for path in job.rglob("*") if path.is_file()}
    assert [pattern for pattern in tree("README.md") if not fnmatch.filter(lie, pattern)] == []
    assert f"job {job.name}: 6 images in 3 shards" in made.stderr.splitlines()
    assert re.search(r"^6 of 6 images, 0 failed, .* images/s$", made.stderr, re.MULTILINE)
