"""The commands that give out what a job has left: `fetch` and `links`."""

# A command's docstring is its help, which opens with an example and not with a sentence.
# ruff: noqa: D400, D415

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from producer import completers
from producer.options import WholeNumber, json_option, quiet_option
from producer.terminal import printable, tell, tell_error

if TYPE_CHECKING:
    from producer.fetch import Summary
    from producer.jobs import JobHandle

_LONGEST_LINK_S = 7 * 24 * 3600

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _selecting(command: _Command) -> _Command:
    """Add JOB, --spec and --image."""
    image = click.option(
        "--image",
        "globs",
        multiple=True,
        metavar="GLOB",
        help="Only these images, such as '*cat*.jpg': the image as it was submitted, or the name at its end, "
        "must match as a whole. * stands for slashes too. May be repeated.",
        show_default="all",
    )
    spec = click.option(
        "--spec",
        "specs",
        multiple=True,
        metavar="LAYER:SELECTION",
        shell_complete=completers.specs,
        help="Only this spec of the job, in any spelling. May be repeated.",
        show_default="all",
    )
    return click.argument("job", shell_complete=completers.folders)(spec(image(command)))


@click.command(short_help="Bring a job's pictures into a folder.")
@_selecting
@click.argument("target", metavar="DEST", shell_complete=completers.folders)
@click.option("--inputs", is_flag=True, help="Also each photograph as the network saw it.")
@click.option(
    "--jobs",
    "n_threads",
    metavar="N",
    type=WholeNumber(1, 64),
    default=8,
    show_default=True,
    help="Pictures that are brought at a time.",
)
@json_option
@quiet_option
def fetch(
    job: str,
    target: str,
    specs: tuple[str, ...],
    globs: tuple[str, ...],
    inputs: bool,
    n_threads: int,
    as_json: bool,
) -> int:
    """Example: deconvoy fetch results/photos-1a2b3c4d5e pictures --spec pool5:max

    Brings pictures into the folder DEST, each verified by its hash, and an index.parquet of just them.
    JOB is the job's place, which works without Redis, or its id. The same command again brings only what
    does not stand in DEST yet. Ends with 1 if something could not be had. Of an audit all is brought: its
    page, its tables, its atlas.
    """
    from producer.audit_files import copy_audit
    from producer.fetch import Fetch
    from producer.jobs import closing, open_job
    from producer.progress import showing_fetch
    from producer.selection import make_selection
    from worker.contract.errors import UsageError
    from worker.storage import open_store

    if "://" in target:
        raise UsageError(f"{target!r} is no folder of this machine: name one to fetch into")
    with closing(open_job(job)) as handle:
        if handle.job.audit is not None:
            _refuse_selection(handle, specs, globs, inputs=inputs)
            summary = copy_audit(handle, open_store(target), n_threads)
        else:
            selection = make_selection(handle.job, specs, globs)
            fetching = Fetch(handle.job, handle.store, open_store(target), inputs=inputs, n_threads=n_threads)
            with showing_fetch() as show:
                summary = fetching.run(selection, tell, show)
    for failure in summary.failures:
        tell_error(printable(f"failed: {failure.name}: {failure.message}"))
    click.echo(json.dumps(_as_json(summary)) if as_json else _as_text(summary))
    return 1 if summary.failures else 0


@click.command(short_help="Print links to a job's page and pictures.")
@_selecting
@click.option(
    "--expires",
    "expires_s",
    type=WholeNumber(1, _LONGEST_LINK_S),
    default=3600,
    show_default=True,
    metavar="SECONDS",
    help="How long the links hold; 7 days at most.",
)
@quiet_option
def links(job: str, specs: tuple[str, ...], globs: tuple[str, ...], expires_s: int) -> None:
    """Example: deconvoy links s3://bucket/photos-1a2b3c4d5e --expires 600

    Prints a JSON object a line: the page's link as `report`, then image, spec, unit and url of each picture.
    With layout tar, `offset` and `length` say which bytes of the url's object are the picture. Whoever has
    such a link can read what it names until it expires. JOB is the job's place, or its id. Of an audit: the
    page with its pictures inside as `report`, then `table` and url of each table.
    """
    from producer.audit_files import audit_links
    from producer.jobs import closing, open_job
    from producer.links import links as links_of
    from producer.selection import make_selection

    with closing(open_job(job)) as handle:
        if handle.job.audit is not None:
            _refuse_selection(handle, specs, globs)
            found = audit_links(handle, expires_s)
        else:
            selection = make_selection(handle.job, specs, globs)
            found = links_of(handle.store, handle.job, selection, expires_s, tell)
        for link in found:
            click.echo(json.dumps(link))


def _refuse_selection(
    handle: JobHandle, specs: Sequence[str], globs: Sequence[str], *, inputs: bool = False
) -> None:
    """Raise UsageError if a part of an audit is asked for."""
    from worker.contract.errors import UsageError

    if specs or globs or inputs:
        raise UsageError(
            f"{handle.id} is an audit, which is given whole: leave out --spec, --image, --inputs"
        )


def _as_json(summary: Summary) -> dict[str, object]:
    return {
        "rows": summary.n_rows,
        "fetched": summary.n_fetched,
        "kept": summary.n_kept,
        "failed": len(summary.failures),
        "failures": [failure._asdict() for failure in summary.failures],
    }


def _as_text(summary: Summary) -> str:
    return f"{summary.n_fetched} fetched, {summary.n_kept} kept, {len(summary.failures)} failed"
