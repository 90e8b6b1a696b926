"""--quiet and --verbose: what is said on stderr, and what is said in any case."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from producer.cli import main
from tests.unit.results.made import N_ROWS, computed_job, index_of
from worker.storage import Store, open_store


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DECONVOY_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "out" / "job-1")


@pytest.fixture
def half_done(store: Store, tmp_path: Path) -> Store:
    computed_job(store, tmp_path / "images", "files", shards=[0, 2])
    return store


@pytest.mark.parametrize("options", [["-qv"], ["-v", "-q"], ["--quiet", "--verbose"]])
@pytest.mark.parametrize(
    "command", [["run", "a", "--out", "o"], ["audit", "a", "--out", "o"], ["worker"], ["beat"]]
)
def test_quiet_and_verbose_exclude_each_other(
    capsys: pytest.CaptureFixture[str], command: list[str], options: list[str]
) -> None:
    assert main([*command, *options]) == 2
    assert "--quiet and --verbose exclude each other" in capsys.readouterr().err


def test_the_choice_of_one_command_line_is_not_that_of_the_next(
    capsys: pytest.CaptureFixture[str], half_done: Store
) -> None:
    assert main(["cancel", half_done.place, "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["cancel", half_done.place]) == 0
    assert "deconvoy resume goes on with it" in capsys.readouterr().err


def test_the_log_of_an_audit_is_shown_only_where_its_workers_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "photos", "--out", "out", "--verbose"]) == 2
    assert "add --local" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--quiet", "--verbose"])
def test_the_audits_of_a_schedule_say_nothing_to_anybody(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setenv("DECONVOY_REDIS_URL", "unix:///tmp/no.sock")
    audit = ["audit", "photos", "--out", "out", option]

    assert main(["schedule", "add", "nightly", "--cron", "0 3 * * *", "--", *audit]) == 2
    assert f"a schedule has no {option}" in capsys.readouterr().err


def test_a_quiet_fetch_and_quiet_links_print_results_alone(
    capsys: pytest.CaptureFixture[str], half_done: Store, tmp_path: Path
) -> None:
    assert main(["fetch", half_done.place, str(tmp_path / "dest"), "--spec", "4:max", "-q"]) == 0
    assert capsys.readouterr() == ("3 fetched, 0 kept, 0 failed\n", "")

    assert main(["links", half_done.place, "--quiet"]) == 0
    linked, said = capsys.readouterr()
    assert (len(linked.splitlines()), said) == (15, "")


def test_what_could_not_be_fetched_is_named_however_quiet(
    capsys: pytest.CaptureFixture[str], store: Store, tmp_path: Path
) -> None:
    computed_job(store, tmp_path / "images", "files")
    gone = index_of(store)[0]["key"]
    (Path(store.place) / gone).unlink()

    assert main(["fetch", store.place, str(tmp_path / "dest"), "--quiet"]) == 1
    printed, said = capsys.readouterr()
    assert printed == f"{N_ROWS - 1} fetched, 0 kept, 1 failed\n"
    (line,) = said.splitlines()
    assert line.startswith("failed: ")


def test_an_error_is_said_however_quiet(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["status", str(tmp_path / "none"), "--quiet"]) == 1
    assert capsys.readouterr().err.startswith("deconvoy: there is no job")


@pytest.mark.parametrize(
    ("options", "level"), [([], "WARNING"), (["--quiet"], "ERROR"), (["--verbose"], "DEBUG")]
)
def test_a_worker_logs_as_much_as_the_option_says_and_else_the_setting(
    monkeypatch: pytest.MonkeyPatch, options: list[str], level: str
) -> None:
    started: list[dict[str, str]] = []
    monkeypatch.setattr(os, "execve", lambda _program, _arguments, environment: started.append(environment))
    monkeypatch.setenv("DECONVOY_LOG_LEVEL", "WARNING")

    main(["worker", *options])

    assert [environment["DECONVOY_LOG_LEVEL"] for environment in started] == [level]
