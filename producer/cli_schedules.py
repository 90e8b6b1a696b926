"""The commands about schedules: `schedule` and what it consists of, and `beat`."""

# A command's docstring is its help, which opens with an example and not with a sentence.
# ruff: noqa: D400, D415

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from producer.options import WholeNumber, json_option, quiet_option, verbosity_options
from producer.terminal import Verbosity, log_environment, printable, tell, verbosity
from producer.usage import Commands

if TYPE_CHECKING:
    from producer.schedules import Definition, Listed

_NOT_SCHEDULED = {
    "name": "its audits are called by the schedule's name",
    "baseline": "each audit is compared with the one before",
    "local": "cluster workers do its audits",
    "wait": "nobody waits for its audits",
    "fail_on": "nobody waits for its audits",
    "as_json": "nothing is printed",
}
"""Options of `audit` that a schedule cannot have, and why."""


@click.group(cls=Commands, short_help="Have audits made on a timetable.")
def schedule() -> None:
    """Example: deconvoy schedule list

    Schedules are kept in the Redis of DECONVOY_REDIS_URL; deconvoy beat submits their audits when they are
    due.
    """


@schedule.command(context_settings={"ignore_unknown_options": True}, short_help="Add or replace a schedule.")
@click.argument("name")
@click.option(
    "--cron", required=True, metavar="CRON", help="Minute, hour, day of month, month, day of week, in UTC."
)
@click.option(
    "--keep",
    type=WholeNumber(1),
    metavar="N",
    show_default="keep all",
    help="Delete finished audits of the schedule beyond the newest N.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- audit SOURCE...")
@quiet_option
def add(name: str, cron: str, keep: int | None, command: tuple[str, ...]) -> None:
    """\b
    Example: deconvoy schedule add nightly --cron '0 3 * * *' --keep 10 \\
             -- audit photos/ --out audits

    After `--` stands the audit as on the command line. A schedule of the same name is replaced. Days are in
    UTC, and day of month and day of week must both hold.
    """  # noqa: D301 (click reads \b as: leave these lines as they are)
    with _schedules() as schedules:
        next_due = schedules.add(_definition(name, cron, keep, command))
    tell(f"schedule {name} is due next at {_time(next_due)}")


@schedule.command("list", short_help="List the schedules, and what became of their audits.")
@json_option
def list_(as_json: bool) -> None:
    """Example: deconvoy schedule list

    Prints of each schedule when it is due, when it was due last, and the place of that audit or why there is
    none.
    """
    with _schedules() as schedules:
        listed = schedules.list()
    if as_json:
        click.echo(json.dumps([_as_json(each) for each in listed]))
        return
    for each in listed:
        click.echo(_as_line(each))


@schedule.command(short_help="Take a schedule away; its audits stay.")
@click.argument("name")
@quiet_option
def remove(name: str) -> None:
    """Example: deconvoy schedule remove nightly

    The audits that it has made stay where they are.
    """
    with _schedules() as schedules:
        schedules.remove(name)
    tell(f"schedule {name} is removed")


@schedule.command(short_help="Submit an audit of a schedule now.")
@click.argument("name")
@click.option(
    "--due",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%S%z"]),
    metavar="TIME",
    show_default="this minute",
    help="The time it was due, such as 2026-03-01T03:00:00+0000.",
)
def run(name: str, due: datetime | None) -> None:
    """Example: deconvoy schedule run nightly

    Prints the audit's id. The same minute twice is the same audit.
    """
    with _schedules() as schedules:
        handle = schedules.run(name, due)
    click.echo(handle.id)


@click.command(short_help="Submit the audits of schedules when they are due.")
@verbosity_options("Log in full, as with DECONVOY_LOG_LEVEL=DEBUG.")
def beat() -> int:
    """Example: DECONVOY_REDIS_URL=redis://queue:6379/0 deconvoy beat

    Runs until SIGTERM or Ctrl-C. What was due while no beat ran is made up for: of each schedule the last
    time, once. Several beats do no harm: one works, and when it is gone for half a minute, another one.
    """
    import logging
    import os

    from producer.beat import beat as beat_until_signal
    from producer.local import ending_on_signals
    from worker.contract.settings import load_settings

    os.environ.update(log_environment())
    settings = load_settings()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=settings.log_level)
    try:
        with ending_on_signals():
            beat_until_signal(settings)
    except SystemExit:
        # It waited for another beat to end.
        return 0
    return 0


def _schedules() -> Any:
    from contextlib import closing

    from producer.schedules import Schedules
    from worker.contract.settings import load_settings

    return closing(Schedules(load_settings()))


def _definition(name: str, cron: str, keep: int | None, command: Sequence[str]) -> Definition:
    """The schedule that the command line means, with absolute paths: the beat may stand elsewhere."""
    from producer.cli_audits import audit
    from producer.planning import resolve_weights
    from producer.schedules import Definition
    from producer.sources import STDIN
    from worker.contract.errors import UsageError
    from worker.storage import open_store

    if command[0] != "audit":
        raise UsageError(f"{command[0]!r} cannot be scheduled: write -- audit SOURCE... --out PLACE")
    context = audit.make_context("deconvoy audit", list(command[1:]))
    if verbosity(context) is not Verbosity.NORMAL:
        raise UsageError(f"a schedule has no --{verbosity(context).name.lower()}: its audits are not watched")
    options = context.params
    for option, why in _NOT_SCHEDULED.items():
        if options.pop(option):
            raise UsageError(f"a schedule has no --{option.removeprefix('as_').replace('_', '-')}: {why}")
    sources = options.pop("sources")
    if STDIN in sources:
        raise UsageError("a schedule cannot read standard input: name a file of images")
    options["weights"] = resolve_weights(options["weights"]).name
    out = open_store(options.pop("out")).place
    # What is left of `options` are those of `AuditPlanOptions`: click has checked them.
    return Definition(name, cron, [_absolute(source) for source in sources], out, options, keep)  # type: ignore[arg-type]


def _absolute(source: str) -> str:
    from worker.contract.paths import expanded

    return source if "://" in source else str(expanded(source).absolute())


def _as_json(listed: Listed) -> dict[str, object]:
    return {
        **asdict(listed.definition),
        "next_due": listed.next_due.isoformat(),
        "last": listed.last and asdict(listed.last),
    }


def _as_line(listed: Listed) -> str:
    definition, last = listed.definition, listed.last
    if last is None:
        became = "not run yet"
    else:
        became = f"last {last.due} " + (f"failed: {last.error}" if last.error else f"at {last.place}")
    return printable(f"{definition.name}  {definition.cron}  next {_time(listed.next_due)}  {became}")


def _time(due: datetime) -> str:
    return f"{due:%Y-%m-%dT%H:%MZ}"
