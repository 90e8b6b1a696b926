"""The beat: submits the audits of schedules when they are due.

One is enough; several do no harm, since only the one that holds RedBeat's lock does something. A due time
counts as done when its submission has ended, so that one that a beat died of, or that was due while no beat
ran, is submitted by the next: the latest of each schedule, once.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar

import redis
from celery.beat import Service
from redbeat import RedBeatScheduler, RedBeatSchedulerEntry

from producer.schedules import LOOP_INTERVAL_S, Run, Schedules, due_text, last_due, schedule_app
from worker.contract.errors import DeconvoyError
from worker.contract.settings import Settings

logger = logging.getLogger(__name__)

_GRACE_S = 10
_PAUSE_S = 5.0


@dataclass(frozen=True)
class Submission:
    """A due time of a schedule, and the process that submits its audit."""

    due: datetime
    process: subprocess.Popen[bytes]


class AuditScheduler(RedBeatScheduler):  # type: ignore[misc]  # RedBeat has no types
    """RedBeat's scheduler, which does not send tasks but starts submissions."""

    # RedBeat would open a line to the broker here, but nothing is sent.
    _maybe_due_kwargs: ClassVar[dict[str, Any]] = {}

    def __init__(self, *arguments: Any, schedules: Schedules, **options: Any) -> None:
        self._schedules = schedules
        self._submissions: dict[str, Submission] = {}
        super().__init__(*arguments, **options)

    def tick(self, *arguments: Any, **options: Any) -> float:
        """End what has ended, then start what is due. Returns the seconds until it is to be asked again."""
        if self.lock is None:
            # Celery keeps to itself what the attempt has raised.
            raise redis.ConnectionError("the lock of the beats cannot be had")
        for name, submission in list(self._submissions.items()):
            if submission.process.poll() is not None:
                del self._submissions[name]
                self._end(name, submission)
        seconds: float = super().tick(*arguments, **options)
        return seconds

    def maybe_due(self, entry: RedBeatSchedulerEntry, **_: object) -> float:
        """Start the submission of an entry that is due, unless it is under way."""
        is_due, next_s = entry.is_due()
        if not is_due or entry.name in self._submissions:
            return float(next_s)
        due = last_due(entry.schedule, datetime.now(UTC))
        if due is not None:
            logger.info("schedule %s: submitting what was due at %s", entry.name, due.isoformat())
            self._submissions[entry.name] = Submission(due, _start(entry.name, due))
        return LOOP_INTERVAL_S

    def close(self) -> None:
        """End what is under way: the next beat begins it again, and finds what stands."""
        for submission in self._submissions.values():
            submission.process.terminate()
        for submission in self._submissions.values():
            try:
                submission.process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                submission.process.kill()
                submission.process.wait()
        self._submissions.clear()
        super().close()

    def _end(self, name: str, submission: Submission) -> None:
        code = submission.process.returncode
        if code < 0:
            # A submission that fails writes that down itself; one that is killed cannot.
            error = f"the submission was ended by signal {-code}"
            self._schedules.note(name, Run(due_text(submission.due), error=error))
        logger.log(
            logging.ERROR if code else logging.INFO, "schedule %s: submission ended with %d", name, code
        )
        try:
            self._schedules.entry(name).reschedule(last_run_at=submission.due)
        except DeconvoyError as error:
            logger.info("schedule %s: %s", name, error)


def beat(settings: Settings) -> None:
    """Submit what is due until SystemExit or KeyboardInterrupt; a Redis that goes away is waited for.

    Raises SettingsError.
    """
    schedules = Schedules(settings)
    scheduler = partial(AuditScheduler, schedules=schedules)
    while True:
        try:
            service = Service(schedule_app(str(settings.redis_url)), scheduler_cls=scheduler)
            service.start()
            return
        except redis.RedisError as error:
            logger.warning("Redis does not do its part, the next look is in %.0f s: %s", _PAUSE_S, error)
            time.sleep(_PAUSE_S)


def _start(name: str, due: datetime) -> subprocess.Popen[bytes]:
    # -P: a folder named `producer` where the user stands must not be taken for ours.
    command = [sys.executable, "-P", "-m", "producer.cli", "schedule", "run", name, "--due", due.isoformat()]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # noqa: S603 (a list of words, no shell)
