"""Audits on a timetable: what is to be audited when, and what became of it. Kept in Redis, by RedBeat.

An audit of a schedule is called by the schedule's name and the time that it was due. So whoever submits a
due time, and however often, it is one audit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from celery import Celery
from celery.schedules import ParseException, crontab
from redbeat import RedBeatSchedulerEntry
from redbeat.schedulers import ensure_conf, get_redis

from producer.audits import AuditPlanOptions, compared, finished_audits, make_audit_plan, newest
from producer.jobs import JobHandle, submit_plan
from producer.pruning import prune
from producer.renewal import renewed
from worker.contract.errors import BrokerError, DeconvoyError, JobError, SettingsError, UsageError
from worker.contract.queue import KEY_PREFIX
from worker.contract.settings import Settings

LOOP_INTERVAL_S = 2
"""How often a beat looks whether something is due."""

LOCK_TIMEOUT_S = 30
"""How long after its last look a beat counts as gone; then another one takes over."""

TASK = "deconvoy audit"
"""What RedBeat calls the task of an entry. It is never sent: the beat submits by itself."""

_RUNS_KEY = f"{KEY_PREFIX}schedule_runs"
"""The Redis hash of what became of each schedule's last due time: name -> a Run as JSON."""

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MAX_NAME = 40
_LONGEST_PAUSE = timedelta(days=8 * 366)
"""Between two 29ths of February there may be eight years."""


@dataclass(frozen=True)
class Definition:
    """What a schedule is: `cron` in UTC; `options` are those of `AuditPlanOptions`."""

    name: str
    cron: str
    sources: list[str]
    out: str
    options: AuditPlanOptions
    keep: int | None = None


@dataclass(frozen=True)
class Run:
    """What became of a due time: the place of its audit, or the error that kept it from being submitted."""

    due: str
    place: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Listed:
    """A schedule, when it is due next, and what became of its last due time."""

    definition: Definition
    next_due: datetime
    last: Run | None


class Schedules:
    """The schedules of one Redis. Every method raises BrokerError where it does not answer.

    Raises SettingsError if the settings name no Redis.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.redis_url is None:
            raise SettingsError("DECONVOY_REDIS_URL is not set: name the Redis that holds the schedules")
        self._settings = settings
        self._app = schedule_app(settings.redis_url)
        self._client = redis.Redis.from_url(settings.redis_url, decode_responses=True, socket_timeout=10)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()
        get_redis(self._app).close()

    def add(self, definition: Definition) -> datetime:
        """Add a schedule, or put another in the place of one of the name; returns when it is due next.

        Raises UsageError for a name, a timetable or options that cannot be used.
        """
        if len(definition.name) > _MAX_NAME or _NAME.fullmatch(definition.name) is None:
            raise UsageError(
                f"schedule {definition.name!r}: a name is small letters, digits and single dashes, at most "
                f"{_MAX_NAME} of them"
            )
        make_audit_plan(definition.options)
        entry = RedBeatSchedulerEntry(
            definition.name,
            TASK,
            parse_cron(definition.cron),
            kwargs={
                "cron": definition.cron,
                "sources": definition.sources,
                "out": definition.out,
                "options": definition.options,
                "keep": definition.keep,
            },
            app=self._app,
        )
        with self._translated():
            # From now on: times that have passed are not made up for.
            entry.save().reschedule()
        return next_due(entry.schedule)

    def definition(self, name: str) -> Definition:
        """A schedule by its name. Raises JobError."""
        return _definition_of(self.entry(name))

    def entry(self, name: str) -> RedBeatSchedulerEntry:
        """What RedBeat keeps of a schedule. Raises JobError."""
        key = RedBeatSchedulerEntry.generate_key(self._app, name)
        try:
            with self._translated():
                return RedBeatSchedulerEntry.from_key(key, app=self._app)
        except KeyError as error:
            raise JobError(f"there is no schedule {name!r}: deconvoy schedule list shows all") from error

    def list(self) -> list[Listed]:
        """All schedules by name."""
        conf = self._app.redbeat_conf
        with self._translated():
            names = map(str, self._client.zrange(conf.schedule_key, 0, -1))
            runs = self._client.hgetall(_RUNS_KEY)
        entries = [self.entry(name.removeprefix(conf.key_prefix)) for name in sorted(names)]
        return [
            Listed(
                _definition_of(entry),
                next_due(entry.schedule),
                Run(**json.loads(runs[entry.name])) if entry.name in runs else None,
            )
            for entry in entries
        ]

    def remove(self, name: str) -> None:
        """Take a schedule away; its audits stay. Raises JobError."""
        entry = self.entry(name)
        with self._translated():
            entry.delete()
            self._client.hdel(_RUNS_KEY, name)

    def run(self, name: str, due: datetime | None = None) -> JobHandle:
        """Submit the audit of a due time, by default of now, and write down what became of it.

        An audit that stands is found, and what is missing of it is enqueued. It is compared with the newest
        finished audit of the schedule that asks the same; finished ones beyond the newest `keep` are deleted.
        Raises what `producer.audits.audit` raises.
        """
        definition = self.definition(name)
        text = due_text(due or datetime.now(UTC))
        try:
            with self._translated(), renewed(self._client, f"{KEY_PREFIX}submitting:{name}"):
                handle = self._submit(definition, f"{name}-{text}")
        except DeconvoyError as error:
            self.note(name, Run(text, error=f"{type(error).__name__}: {error}"))
            raise
        self.note(name, Run(text, place=handle.place))
        return handle

    def note(self, name: str, run: Run) -> None:
        """Write down what became of a schedule's due time."""
        with self._translated():
            self._client.hset(_RUNS_KEY, name, json.dumps(run.__dict__))

    def _submit(self, definition: Definition, job_id: str) -> JobHandle:
        plan = replace(make_audit_plan(definition.options), id=job_id)
        earlier = finished_audits(definition.out, rf"{definition.name}-\d{{8}}t\d{{4}}")
        earlier = [handle for handle in earlier if handle.id != job_id]
        plan = compared(plan, newest(earlier, plan))
        handle = submit_plan(definition.sources, definition.out, plan, self._settings)
        if definition.keep is not None:
            prune(earlier[definition.keep :], handle.job)
        return handle

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            raise BrokerError(
                f"the Redis of the schedules does not do its part: {error}; start it, or correct "
                "DECONVOY_REDIS_URL"
            ) from error


def schedule_app(redis_url: str) -> Celery:
    """The application that RedBeat asks for its settings; nothing is sent through it."""
    app = Celery("deconvoy-beat", set_as_current=False)
    app.conf.update(
        timezone="UTC",
        beat_enable_remote_control=False,
        # Celery would schedule a task of its own that deletes results.
        result_expires=None,
        beat_max_loop_interval=LOOP_INTERVAL_S,
        redbeat_redis_url=redis_url,
        redbeat_redis_options={"socket_timeout": 10, "socket_connect_timeout": 10},
        redbeat_key_prefix=f"{KEY_PREFIX}redbeat:",
        redbeat_lock_timeout=LOCK_TIMEOUT_S,
    )
    ensure_conf(app)
    return app


def due_text(due: datetime) -> str:
    """A due time as audits are called by it: `20261124t0300`, in UTC."""
    return due.astimezone(UTC).strftime("%Y%m%dt%H%M")


def parse_cron(text: str) -> crontab:
    """Five fields in UTC: minute, hour, day of month, month, day of week, all of which must hold.

    Raises UsageError.
    """
    try:
        minute, hour, day_of_month, month_of_year, day_of_week = text.split()
        timetable = crontab(minute, hour, day_of_week, day_of_month, month_of_year)
    except (ParseException, ValueError) as error:
        raise UsageError(
            f"--cron {text!r} is no timetable: name minute, hour, day of month, month and day of week, such "
            "as '0 3 * * *'"
        ) from error
    if last_due(timetable, datetime.now(UTC)) is None:
        raise UsageError(f"--cron {text!r} never comes: there is no such day")
    return timetable


def next_due(timetable: crontab) -> datetime:
    """The next time of the timetable, in UTC."""
    now = datetime.now(UTC)
    due: datetime = now + timetable.remaining_delta(now)[1]
    return due


def last_due(timetable: crontab, now: datetime) -> datetime | None:
    """The most recent time of the timetable, in UTC, that is not after `now`; None: it never comes."""
    moment = now.astimezone(UTC).replace(second=0, microsecond=0)
    earliest = moment - _LONGEST_PAUSE
    while moment >= earliest:
        if not _is_day(timetable, moment):
            moment = moment.replace(hour=23, minute=59) - timedelta(days=1)
        elif moment.hour in timetable.hour and moment.minute in timetable.minute:
            return moment
        else:
            moment -= timedelta(minutes=1)
    return None


def _is_day(timetable: crontab, moment: datetime) -> bool:
    return (
        moment.month in timetable.month_of_year
        and moment.day in timetable.day_of_month
        and moment.isoweekday() % 7 in timetable.day_of_week
    )


def _definition_of(entry: Any) -> Definition:
    return Definition(name=entry.name, **entry.kwargs)
