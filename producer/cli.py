"""The command line. What a command needs is imported when it runs, so that --help answers at once.

Results and ids go to stdout, everything else to stderr. Exit codes: 0 all done; 1 an error; 2 wrong
usage; 3 finished, but some images failed.
"""

# A command's docstring is its help, which opens with an example and not with a sentence.
# ruff: noqa: D400, D415

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Unpack

import click

from producer.options import job_options, json_option
from worker.contract.errors import DeconvoyError

if TYPE_CHECKING:
    from producer.jobs import JobHandle, JobStatus
    from producer.planning import PlanOptions

SOME_IMAGES_FAILED = 3
_INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="deconvoy", message="%(prog)s %(version)s")
def cli() -> None:
    """Example: deconvoy run photos/ --out results

    Shows what a VGG network sees in a whole data set: deconvnet reconstructions, computed by Celery
    workers, left as pictures, a table and a page.
    """


@cli.command(short_help="Do a job on this machine alone.")
@job_options
@json_option
def run(sources: tuple[str, ...], out: str, as_json: bool, **options: Unpack[PlanOptions]) -> int:
    """Example: deconvoy run photos/ --out results --spec pool5:max

    Starts a private Redis and this machine's workers, does the job, and stops what it started. The same
    command again goes on where the last one was stopped. SOURCE is a file, a folder, a manifest (.txt,
    .csv, .jsonl, .parquet with a column `image`) or - for paths on standard input.
    """
    from producer.jobs import enqueue_missing, prepare
    from producer.local import ending_on_signals, private_cluster
    from producer.planning import make_plan
    from producer.progress import showing_progress
    from worker.contract.settings import load_settings

    with ending_on_signals():
        settings = load_settings()
        handle = prepare(list(sources), out, make_plan(options), local=True)
        _tell(f"job {handle.id}: {handle.job.n_images} images in {handle.job.n_shards} shards")
        if handle.status().finished:
            return _conclude(handle, handle.status(), as_json)
        with private_cluster(settings) as cluster, showing_progress() as show:
            handle.broker = cluster.broker
            enqueue_missing(handle)
            cluster.start_workers()

            def on_status(status: JobStatus) -> None:
                show(status)
                if not status.finished:
                    cluster.check()

            status = handle.wait(on_status)
        return _conclude(handle, status, as_json)


@cli.command(short_help="Enqueue a job for a cluster's workers.")
@job_options
@json_option
def submit(sources: tuple[str, ...], out: str, as_json: bool, **options: Unpack[PlanOptions]) -> None:
    """Example: deconvoy submit photos/ --out /shared/results

    Writes the job under --out, which the workers must see under the same path, enqueues it in the Redis
    of DECONVOY_REDIS_URL and prints its id. The same request again enqueues what is missing.
    """
    from producer import jobs

    with jobs.closing(jobs.submit(sources, out=out, **options)) as handle:
        _tell(f"{handle.job.n_images} images in {handle.job.n_shards} shards, at {handle.place}")
        click.echo(json.dumps({"id": handle.id, "place": handle.place}) if as_json else handle.id)


@cli.command(short_help="How far a job is.")
@click.argument("job")
@click.option("--watch", is_flag=True, help="Show progress until the job is finished.")
@json_option
def status(job: str, watch: bool, as_json: bool) -> int:
    """Example: deconvoy status results/photos-1a2b3c4d5e

    JOB is the job's folder, which works without Redis, or its id.
    """
    from producer import jobs
    from producer.progress import showing_progress

    with jobs.closing(jobs.open_job(job)) as handle:
        if watch:
            with showing_progress() as show:
                return _conclude(handle, handle.wait(show), as_json)
        now = handle.status()
        click.echo(json.dumps(_as_json(handle, now)) if as_json else _as_text(handle, now))
        if now.finished:
            return SOME_IMAGES_FAILED if now.n_failed else 0
        return 1 if now.stuck else 0


@cli.command(short_help="Work for a cluster.")
@click.option("--gpus", default="all", show_default=True, help="all, none, or numbers such as 0,1.")
def worker(gpus: str) -> None:
    """Example: DECONVOY_REDIS_URL=redis://queue:6379/0 deconvoy worker --gpus all

    One worker for each GPU of this machine, or one on the CPU; ends on SIGTERM or Ctrl-C.
    """
    # -P: a folder named `worker` where the user stands must not be taken for ours.
    command = [sys.executable, "-P", "-m", "worker.launch", "--gpus", gpus]
    os.execv(sys.executable, command)  # noqa: S606


@cli.command(short_help="What works here, and what to do about what does not.")
@click.option("--out", metavar="FOLDER", help="Check that this folder can hold jobs.")
@click.option("--weights", help="Check these weights.")
@click.option("--certify", is_flag=True, help="Measure what holds on this machine with --weights.")
def doctor(out: str | None, weights: str | None, certify: bool) -> int:
    """Example: deconvoy doctor --out results --weights hed --certify"""
    from producer.doctor import examine

    if certify and weights is None:
        raise click.UsageError("--certify needs --weights: say which weights to certify")
    findings = examine(out, weights, certify=certify)
    for finding in findings:
        click.echo(f"{'ok' if finding.ok else 'problem':8}{finding.subject:10}{finding.text}")
    return 0 if all(finding.ok for finding in findings) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. What a user can cause is one line, no traceback."""
    try:
        code = cli.main(arguments, prog_name="deconvoy", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        _tell("deconvoy: interrupted; the same command goes on from here")
        return _INTERRUPTED
    except DeconvoyError as error:
        _tell(f"deconvoy: {_printable(str(error))}")
        return error.exit_code
    return code if isinstance(code, int) else 0


def _conclude(handle: JobHandle, status: JobStatus, as_json: bool) -> int:
    """Print a finished job's result, and each failed image with its reason on stderr."""
    for failure in handle.failures():
        _tell(_printable(f"failed: {failure.image}: {failure.error}: {failure.message}"))
    click.echo(json.dumps(_as_json(handle, status)) if as_json else handle.report)
    return SOME_IMAGES_FAILED if status.n_failed else 0


def _as_json(handle: JobHandle, status: JobStatus) -> dict[str, object]:

    return {**asdict(status), "state": status.state, "report": handle.report if status.finished else None}


def _as_text(handle: JobHandle, status: JobStatus) -> str:
    lines = [
        f"job     {status.id}",
        f"place   {status.place}",
        f"state   {status.state}",
        f"images  {status.n_done} of {status.n_images}, {status.n_failed} failed",
        f"shards  {status.n_shards_done} of {status.n_shards}",
        *(f"error   {_printable(error)}" for error in status.errors),
    ]
    if status.finished:
        lines.append(f"page    {handle.report}")
    return "\n".join(lines)


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _printable(text: str) -> str:
    """The text on one line, without what could command a terminal: file names may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


if __name__ == "__main__":
    sys.exit(main())
