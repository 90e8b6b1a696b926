"""Schedules with a real beat, a real Redis and a real worker: what is audited when, and how often."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import redis
from PIL import Image

from producer.jobs import closing, open_job
from producer.schedules import LOCK_TIMEOUT_S, Schedules, due_text, last_due, parse_cron
from tests.cluster import Deconvoy, family, wait_until
from tests.length import at_length
from worker.contract import keys, queue
from worker.contract.errors import UsageError
from worker.contract.settings import Settings

pytestmark = pytest.mark.integration

NETWORK = ("--weights", "random:0", "--model", "vgg11")
AUDIT = ("--layer", "pool1", *NETWORK, "--resize", "native", "--top", "2")


class Timetable:
    """A schedule `nightly` of tiny images; what it has made stands under `out`."""

    def __init__(self, deconvoy: Deconvoy, redis_url: str, folder: Path, ending: ExitStack) -> None:
        self.images = folder / "images"
        self.out = folder / "out"
        self.settings = Settings(redis_url=redis_url)
        self.environment = {"DECONVOY_REDIS_URL": redis_url}
        self._deconvoy = deconvoy
        self._folder = folder
        self._ending = ending
        self.images.mkdir()
        for number in range(4):
            self.add_image(number)

    def add_image(self, number: int) -> None:
        pixels_HWC = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels_HWC).save(self.images / f"{number}.png")

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._deconvoy(*arguments, **self.environment)

    def schedule(self, cron: str, *options: str) -> None:
        audit = ["audit", str(self.images), "--out", str(self.out), *AUDIT]
        ended = self("schedule", "add", "nightly", "--cron", cron, *options, "--", *audit)
        assert ended.returncode == 0, ended.stderr

    def forget_since(self, days: int) -> None:
        """As if no beat had run for so long."""
        with ExitStack() as ending:
            schedules = Schedules(self.settings)
            ending.callback(schedules.close)
            schedules.entry("nightly").reschedule(last_run_at=datetime.now(UTC) - timedelta(days=days))

    def start(self, *command: str) -> subprocess.Popen[str]:
        log = self._folder / f"{command[0]}.log"
        return self._ending.enter_context(self._deconvoy.logging(log, *command, **self.environment))

    def log_of(self, command: str) -> str:
        return (self._folder / f"{command}.log").read_text()

    def clear_log_of(self, command: str) -> None:
        (self._folder / f"{command}.log").write_text("")

    def listed(self) -> dict[str, object]:
        (row,) = json.loads(self("schedule", "list", "--json").stdout)
        assert isinstance(row, dict)
        return row

    def audits(self) -> list[str]:
        return sorted(path.parent.name for path in self.out.glob(f"*/{keys.JOB}"))

    def wait_for(self, job: str) -> None:
        wait_until((self.out / job / keys.REPORT).exists, f"the page of {job}", 150)


@pytest.fixture
def timetable(deconvoy: Deconvoy, redis_url: str, tmp_path: Path) -> Iterator[Timetable]:
    with ExitStack() as ending:
        yield Timetable(deconvoy, redis_url, tmp_path, ending)


def just_passed(minutes: int) -> tuple[str, str]:
    """A timetable that was due so many minutes ago, and every hour before; and that due time."""
    due = datetime.now(UTC) - timedelta(minutes=minutes)
    return f"{due.minute} * * * *", due_text(due)


def test_two_beats_make_one_audit_and_the_next_is_compared_with_it(
    timetable: Timetable, client: redis.Redis
) -> None:
    first_cron, first_due = just_passed(40)
    timetable.schedule(first_cron, "--keep", "1")
    timetable.forget_since(days=10)
    beats = [timetable.start("beat") for _ in range(2)]
    timetable.start("worker", "--gpus", "none")
    first = f"nightly-{first_due}"
    timetable.wait_for(first)
    assert timetable.audits() == [first]
    assert timetable.log_of("beat").count("submitting") == 1
    wait_until(lambda: timetable.listed()["last"] is not None, "the run is written down")
    assert timetable.listed()["last"] == {
        "due": first_due,
        "place": str(timetable.out / first),
        "error": None,
    }

    for beat in beats:
        beat.send_signal(signal.SIGTERM)
    assert [beat.wait(60) for beat in beats] == [0, 0]
    timetable.add_image(4)
    second_cron, second_due = just_passed(20)
    timetable.schedule(second_cron, "--keep", "1")
    timetable.forget_since(days=10)
    timetable.start("beat")
    second = f"nightly-{second_due}"
    timetable.wait_for(second)
    assert timetable.audits() == [first, second]
    with closing(open_job(str(timetable.out / second), timetable.settings)) as handle:
        assert handle.job.audit is not None
        assert handle.job.audit.baseline == str(timetable.out / first)
        assert handle.job.n_images == 5
    found = json.loads(timetable("findings", str(timetable.out / second), "--json").stdout)
    assert [row["kind"] for row in found if row["kind"].startswith("image-")] == ["image-added"]

    # By hand, with two finished ones before: the newest is kept, being what it is compared with.
    third = timetable("schedule", "run", "nightly").stdout.strip()
    assert timetable.audits() == [second, third]
    assert client.hget(queue.JOBS_KEY, third) == str(timetable.out / third)


def test_a_beat_that_was_away_catches_up_once_and_no_due_time_comes_twice(timetable: Timetable) -> None:
    cron, due = just_passed(30)
    timetable.schedule(cron)
    timetable.forget_since(days=5)
    for _ in range(2):
        beat = timetable.start("beat")
        wait_until(lambda: "submission ended with 0" in timetable.log_of("beat"), "the submission ends")
        beat.send_signal(signal.SIGTERM)
        assert beat.wait(60) == 0
        timetable.clear_log_of("beat")
        assert timetable.audits() == [f"nightly-{due}"]
        # As if the beat had died before it had written down what it did.
        job = (timetable.out / f"nightly-{due}" / keys.JOB).read_bytes()
        timetable.forget_since(days=5)
        timetable.add_image(9)
    assert (timetable.out / f"nightly-{due}" / keys.JOB).read_bytes() == job


@at_length
def test_a_beat_that_is_killed_in_the_middle_of_a_submission_loses_no_due_time(
    timetable: Timetable, client: redis.Redis
) -> None:
    cron, due = just_passed(30)
    timetable.schedule(cron)
    timetable.forget_since(days=5)
    beat = timetable.start("beat")
    wait_until(lambda: "submitting" in timetable.log_of("beat"), "the submission begins")
    for process in reversed(family(beat.pid)):
        process.kill()
    beat.wait()
    assert timetable.audits() == []
    # The lock of the dead, which is gone by itself after half a minute.
    assert 0 < client.ttl("deconvoy:redbeat::lock") <= LOCK_TIMEOUT_S
    client.delete("deconvoy:redbeat::lock")
    timetable.start("beat")
    wait_until(lambda: timetable.audits() == [f"nightly-{due}"], "the audit is submitted")


def test_what_keeps_an_audit_from_being_submitted_is_listed(timetable: Timetable) -> None:
    cron, due = just_passed(30)
    timetable.schedule(cron)
    timetable.forget_since(days=1)
    for image in timetable.images.iterdir():
        image.unlink()
    timetable.images.rmdir()
    timetable.start("beat")
    wait_until(lambda: timetable.listed()["last"] is not None, "the error is written down")
    last = timetable.listed()["last"]
    assert isinstance(last, dict)
    assert (last["due"], last["place"]) == (due, None)
    assert last["error"].startswith(f"SourceError: source '{timetable.images}'")
    assert f"last {due} failed: SourceError" in timetable("schedule", "list").stdout
    assert "deconvoy: source" in timetable.log_of("beat")


def test_a_schedule_is_replaced_and_removed(timetable: Timetable) -> None:
    timetable.schedule("0 3 * * *")
    timetable.schedule("30 4 * * 1", "--keep", "3")
    row = timetable.listed()
    assert (row["name"], row["cron"], row["keep"], row["last"]) == ("nightly", "30 4 * * 1", 3, None)
    assert row["sources"] == [str(timetable.images)]
    next_due = datetime.fromisoformat(str(row["next_due"]))
    assert (next_due.isoweekday(), next_due.hour, next_due.minute) == (1, 4, 30)
    assert next_due > datetime.now(UTC)
    assert timetable("schedule", "remove", "nightly").returncode == 0
    assert timetable("schedule", "list", "--json").stdout == "[]\n"
    gone = timetable("schedule", "run", "nightly")
    assert gone.returncode == 1
    assert "there is no schedule 'nightly'" in gone.stderr


def test_the_last_due_time_is_the_latest_that_celery_would_have_run() -> None:
    now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    for cron in ("0 3 * * *", "*/7 * * * *", "15 2 29 * *", "0 0 * * 0", "59 23 31 12 *", "0 12 1 3 *"):
        due = last_due(parse_cron(cron), now)
        assert due is not None
        assert due <= now
        timetable = parse_cron(cron)
        timetable.nowfun = lambda: now
        following = due + timetable.remaining_delta(due)[1]
        assert following > now, cron
    leap_day = last_due(parse_cron("0 0 29 2 *"), now)
    assert leap_day == datetime(2024, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize("cron", ["0 3 * *", "61 * * * *", "a b c d e", "0 0 30 2 *"])
def test_a_timetable_that_never_comes_is_refused(cron: str) -> None:
    with pytest.raises(UsageError, match="--cron"):
        parse_cron(cron)
