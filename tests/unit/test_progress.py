"""Progress: what is counted, when a line is due, and what a terminal gets that a pipe does not."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from producer.fetch import Failure, Summary
from producer.progress import Lines, Rate, Standing, standing_of_fetch
from tests.unit.results.made import clean_environment, command, computed_job
from tests.unit.terminals import on_a_terminal
from worker.storage import open_store

MOVES_CURSOR = re.compile(r"\x1b\[\??\d*[ABCDGHJKhl]")
COLOUR = re.compile(r"\x1b\[[\d;]*m")


def test_the_rate_counts_from_the_first_look_and_without_earlier_work() -> None:
    rate = Rate()

    assert rate.text(10.0, Standing("images", 100, 200, 0)) == "starting"
    assert rate.text(12.0, Standing("images", 100, 200, 0)) == "starting"
    assert rate.text(14.0, Standing("images", 108, 200, 0)) == "2 images/s"


def test_the_rate_begins_anew_where_something_else_is_counted() -> None:
    rate = Rate()
    rate.text(0.0, Standing("images", 0, 9, 0))

    assert rate.text(10.0, Standing("shards", 3, 9, 0)) == "starting"
    assert rate.text(14.0, Standing("shards", 5, 9, 0)) == "0.5 shards/s"


def test_what_was_all_done_before_has_no_rate() -> None:
    assert Rate().text(10.0, Standing("images", 9, 9, 0)) == ""


def test_a_fetch_is_counted_in_pictures() -> None:
    failures = [Failure("a.png", "a.jpg", "gone")]

    assert standing_of_fetch(Summary(9, 8, 3, 0, failures)) == Standing("pictures", 4, 8, 1)
    assert standing_of_fetch(Summary(9, 8, 3, 2, [])) == Standing("pictures", 5, 8, 0, "2 stood")


def test_lines_come_every_five_seconds_and_less_often_when_it_takes_long(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = Lines(0.0, now_s=0.0)
    told_at_s = []
    for now_s in range(4000):
        lines.show(Standing("images", now_s, 4000, 1), float(now_s))
        if capsys.readouterr().err:
            told_at_s.append(now_s)

    assert told_at_s[:5] == [0, 5, 10, 15, 20]
    pauses_s = [later - sooner for sooner, later in pairwise(told_at_s)]
    assert pauses_s == sorted(pauses_s)
    assert pauses_s[-1] == 60


def test_a_line_says_how_far_it_is_and_the_last_one_is_never_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = Lines(0.0, now_s=0.0)
    standing = Standing("pictures", 0, 4, 0)
    lines.show(standing, 0.0)
    lines.show(replace(standing, n_done=2, n_failed=1), 1.0)
    lines.show(replace(standing, n_done=4, n_failed=1, remark="2 stood", ended=True), 2.0)

    assert capsys.readouterr().err.splitlines() == [
        "0 of 4 pictures, 0 failed, starting",
        "4 of 4 pictures, 1 failed, 2 stood, 2 pictures/s",
    ]


@pytest.fixture
def finished(tmp_path: Path) -> str:
    """The place of a finished job: five images, and one that is missing."""
    store = open_store(tmp_path / "out" / "job-1")
    computed_job(store, tmp_path / "images", "files", also=[str(tmp_path / "gone.png")])
    return store.place


def test_a_terminal_gets_a_bar_with_rate_failures_and_time(finished: str) -> None:
    ended = on_a_terminal(command("status", finished, "--watch"), clean_environment(TERM="xterm-256color"))

    assert ended.returncode == 3
    assert MOVES_CURSOR.search(ended.terminal)
    assert COLOUR.search(ended.terminal)
    bar = next(line for line in _text(ended.terminal) if line.startswith("images"))
    assert re.search(r"6/6 .*1 failed .*\d:\d\d:\d\d left", bar), bar


def test_no_color_leaves_a_bar_without_colour(finished: str) -> None:
    environment = clean_environment(TERM="xterm-256color", NO_COLOR="1")
    ended = on_a_terminal(command("status", finished, "--watch"), environment)

    assert MOVES_CURSOR.search(ended.terminal)
    # Bold and dim are no colours; 30 and above are.
    codes = {code for found in COLOUR.findall(ended.terminal) for code in re.findall(r"\d+", found)}
    assert codes <= {"0", "1", "2"}


@pytest.mark.parametrize(
    ("options", "environment"), [([], {"TERM": "dumb"}), (["--quiet"], {"TERM": "xterm-256color"})]
)
def test_a_dumb_terminal_gets_lines_and_a_quiet_one_failures_alone(
    finished: str, options: list[str], environment: dict[str, str]
) -> None:
    ended = on_a_terminal(command("status", finished, "--watch", *options), clean_environment(**environment))

    assert "\x1b" not in ended.terminal
    first, *others = ended.terminal.splitlines()
    if not options:
        assert first == "6 of 6 images, 1 failed"
        (first,) = others
    assert first.startswith("failed: ")


@pytest.mark.parametrize("variables", [{}, {"FORCE_COLOR": "1", "TERM": "xterm-256color"}])
def test_a_pipe_gets_plain_lines_whatever_the_environment_says(
    finished: str, variables: dict[str, str]
) -> None:
    environment = {**clean_environment(), **variables}
    ended = subprocess.run(
        command("status", finished, "--watch"), env=environment, capture_output=True, text=True, timeout=60
    )

    assert "\x1b" not in ended.stderr + ended.stdout
    assert ended.stderr.splitlines()[0] == "6 of 6 images, 1 failed"


def _text(terminal: str) -> list[str]:
    return [line.strip() for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", terminal))]
