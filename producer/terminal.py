"""What is said on stderr, and how much of it: as usual, nothing but errors, or this machine's log too."""

from __future__ import annotations

from enum import Enum

import click

_META_KEY = __name__


class Verbosity(Enum):
    """How much a command says; the value is the level of its workers' log, None: that of the settings."""

    QUIET = "ERROR"
    NORMAL = None
    VERBOSE = "DEBUG"


def verbosity(context: click.Context | None = None) -> Verbosity:
    """What was asked for on the command line that is running, or that `context` has read."""
    context = context or click.get_current_context(silent=True)
    chosen = context.meta.get(_META_KEY) if context is not None else None
    return chosen if isinstance(chosen, Verbosity) else Verbosity.NORMAL


def choose_verbosity(context: click.Context, chosen: Verbosity) -> None:
    """Make it that of the command line. Raises click.UsageError if another one was chosen already."""
    if verbosity(context) not in (Verbosity.NORMAL, chosen):
        raise click.UsageError("--quiet and --verbose exclude each other: leave out one of them", context)
    context.meta[_META_KEY] = chosen


def log_environment() -> dict[str, str]:
    """The variables that make a log as full as was asked for."""
    level = verbosity().value
    return {} if level is None else {"DECONVOY_LOG_LEVEL": level}


def tell(line: str) -> None:
    """Print a line on stderr that is no error: nobody reads it who wants it quiet."""
    if verbosity() is not Verbosity.QUIET:
        tell_error(line)


def tell_error(line: str) -> None:
    """Print a line on stderr in any case: an error, or what an exit code other than 0 stands for."""
    click.echo(line, err=True)


def printable(text: str) -> str:
    """The text on one line, without what could command a terminal: file names may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
