"""The commands about jobs that were submitted: `status`, `jobs`, `cancel`, `resume`."""

# A command's docstring is its help, which opens with an example and not with a sentence.
# ruff: noqa: D400, D415

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from producer import completers
from producer.options import json_option, priority_option, quiet_option
from producer.terminal import printable, tell, tell_error

if TYPE_CHECKING:
    from producer.jobs import JobHandle
    from producer.status import JobStatus
    from worker.contract.queue import Priority

SOME_IMAGES_FAILED = 3


@click.command(short_help="Say how far a job is.")
@click.argument("job", shell_complete=completers.folders)
@click.option("--watch", is_flag=True, help="Show progress until the job is finished.")
@json_option
@quiet_option
def status(job: str, watch: bool, as_json: bool) -> int:
    """Example: deconvoy status results/photos-1a2b3c4d5e

    Prints its state, how many images and shards are done, and how many images failed. JOB is the job's
    place, a folder or s3://bucket/prefix/ID, which works without Redis, or its id.
    """
    from producer.jobs import closing, open_job
    from producer.progress import showing_job

    with closing(open_job(job)) as handle:
        if watch:
            with showing_job() as show:
                return conclude(handle, handle.wait(show), as_json)
        now = handle.status()
        click.echo(json.dumps(_as_json(handle, now)) if as_json else _as_text(handle, now))
        if now.finished:
            return SOME_IMAGES_FAILED if now.n_failed else 0
        return 1 if now.stopped else 0


@click.command(short_help="List the jobs that are known.")
@click.argument("out", required=False, shell_complete=completers.folders)
@json_option
def jobs(out: str | None, as_json: bool) -> None:
    """Example: deconvoy jobs results

    Prints id and place of each job under OUT, a folder or s3://bucket/prefix, for which no Redis is needed;
    without OUT, of each that was submitted through the Redis of DECONVOY_REDIS_URL.
    """
    from producer.jobs import list_jobs

    found = list_jobs(out)
    if as_json:
        click.echo(json.dumps(found))
        return
    for job, place in sorted(found.items()):
        click.echo(f"{job}  {printable(place)}")


@click.command(short_help="Stop a job; what is done stays.")
@click.argument("job", shell_complete=completers.folders)
@quiet_option
def cancel(job: str) -> None:
    """Example: deconvoy cancel results/photos-1a2b3c4d5e

    No worker begins another shard of it; those under way are finished. `resume` goes on with it. JOB is the
    job's place, which works without Redis, or its id.
    """
    from producer.jobs import closing, open_job

    with closing(open_job(job)) as handle:
        handle.cancel()
        tell(f"job {handle.id} is cancelled; deconvoy resume goes on with it")


@click.command(short_help="Go on with a job.")
@click.argument("job", shell_complete=completers.folders)
@click.option("--failed", is_flag=True, help="Try the images of a finished job again that are not ok.")
@priority_option(default=None)
@quiet_option
def resume(job: str, failed: bool, priority: Priority | None) -> None:
    """Example: deconvoy resume results/photos-1a2b3c4d5e --failed

    Enqueues the shards whose record is missing, in the Redis of DECONVOY_REDIS_URL: after a cancel, an
    error, or a Redis that lost all it had. Nothing that is done is done again. JOB is the job's place, or
    its id.
    """
    from producer.jobs import closing, open_job

    with closing(open_job(job)) as handle:
        n_shards = handle.resume(failed=failed, priority=priority)
        tell(f"job {handle.id}: {n_shards} shards enqueued")


def conclude(handle: JobHandle, status: JobStatus, as_json: bool) -> int:
    """Print a finished job's result, and each failed image with its reason on stderr."""
    for failure in handle.failures():
        tell_error(printable(f"failed: {failure.image}: {failure.error}: {failure.message}"))
    click.echo(json.dumps(_as_json(handle, status)) if as_json else handle.report)
    return SOME_IMAGES_FAILED if status.n_failed else 0


def _as_json(handle: JobHandle, status: JobStatus) -> dict[str, object]:
    return {**asdict(status), "report": handle.report if status.finished else None}


def _as_text(handle: JobHandle, status: JobStatus) -> str:
    state = status.state if status.attempt == 0 else f"{status.state}, attempt {status.attempt + 1}"
    lines = [
        f"job     {status.id}",
        f"place   {status.place}",
        f"state   {state}",
        f"images  {status.n_done} of {status.n_images}, {status.n_failed} failed",
        f"shards  {status.n_shards_done} of {status.n_shards}",
        *(f"error   {printable(error)}" for error in status.errors),
        *(f"note    {printable(note)}" for note in status.notes),
    ]
    if status.slowest_stage is not None:
        lines.append(f"slowest {status.slowest_stage}, {status.stages[status.slowest_stage]:.1f} s in all")
    if status.finished:
        lines.append(f"page    {handle.report}")
    return "\n".join(lines)
