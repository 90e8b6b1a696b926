"""The command line. What a command needs is imported when it runs, so that --help answers at once.

Results and ids go to stdout, everything else to stderr. Exit codes: 0 all done; 1 an error; 2 wrong
usage; 3 finished, but some images failed; 4 finished, and a finding is as grave as --fail-on says.
"""

# A command's docstring is its help, which opens with an example and not with a sentence.
# ruff: noqa: D400, D415

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

import click

from producer import completers
from producer.cli_audits import audit, findings
from producer.cli_jobs import cancel, conclude, jobs, resume, status
from producer.cli_results import fetch, links
from producer.cli_schedules import beat, schedule
from producer.options import WholeNumber, job_options, json_option, quiet_option, verbosity_options
from producer.terminal import log_environment, printable, tell, tell_error
from producer.usage import SETTINGS, Commands, line_of
from worker.contract.errors import DeconvoyError

if TYPE_CHECKING:
    from producer.planning import PlanOptions

_INTERRUPTED = 130


def _show_versions(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from producer import versions

        click.echo(versions.report())
        context.exit()


@click.group(cls=Commands, context_settings=SETTINGS)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_versions,
    help="Show the versions of deconvoy and of what it works with, and exit.",
)
def cli() -> None:
    """Example: deconvoy run photos/ --out results

    Shows what a VGG network sees in a whole data set: deconvnet reconstructions, computed by Celery
    workers, left as pictures, a table and a page. `deconvoy help COMMAND` says more about each command.
    """


@click.command(short_help="Do a job on this machine alone.")
@job_options
@json_option
@verbosity_options("Show the workers' log in full as well.")
def run(sources: tuple[str, ...], out: str, as_json: bool, **options: Unpack[PlanOptions]) -> int:
    """Example: deconvoy run photos/ --out results --spec pool5:max

    Starts a private Redis and this machine's workers, does the job, and stops what it started. The same
    command again goes on where the last one was stopped. SOURCE is a file, a folder, s3://bucket/prefix,
    an object in a bucket, a manifest (.txt, .csv, .jsonl, .parquet with a column `image`) of paths and
    s3:// URIs, or - for these on standard input.
    """
    from producer.jobs import prepare
    from producer.local import ending_on_signals, work_here
    from producer.planning import make_plan
    from worker.contract.settings import load_settings

    with ending_on_signals():
        settings = load_settings()
        handle = prepare(
            list(sources), out, make_plan(options), local=True, allowed_roots=settings.allowed_roots
        )
        tell(f"job {handle.id}: {handle.job.n_images} images in {handle.job.n_shards} shards")
        return conclude(handle, work_here(handle, settings), as_json)


@click.command(short_help="Enqueue a job for a cluster's workers.")
@job_options
@json_option
@quiet_option
def submit(sources: tuple[str, ...], out: str, as_json: bool, **options: Unpack[PlanOptions]) -> None:
    """Example: deconvoy submit photos/ --out /shared/results

    Writes the job under --out, a bucket or a folder that the workers see under the same path, enqueues it
    in the Redis of DECONVOY_REDIS_URL and prints its id. The same request again enqueues what is missing.
    SOURCE is as for `run`.
    """
    from producer import jobs as interface

    with interface.closing(interface.submit(sources, out=out, **options)) as handle:
        tell(f"{handle.job.n_images} images in {handle.job.n_shards} shards, at {handle.place}")
        click.echo(json.dumps({"id": handle.id, "place": handle.place}) if as_json else handle.id)


@click.command(short_help="Work for a cluster.")
@click.option(
    "--gpus", metavar="GPUS", default="all", show_default=True, help="all, none, or numbers such as 0,1."
)
@click.option(
    "--metrics-port",
    type=WholeNumber(1, 65535),
    metavar="PORT",
    help="Serve Prometheus metrics on this port.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    show_default="DECONVOY_LOG_FORMAT, else text",
    help="What log lines are; json: an object a line.",
)
@verbosity_options("Log in full, as with DECONVOY_LOG_LEVEL=DEBUG.")
def worker(gpus: str, metrics_port: int | None, log_format: str | None) -> None:
    """Example: DECONVOY_REDIS_URL=redis://queue:6379/0 deconvoy worker --gpus all

    One worker for each GPU of this machine, or one on the CPU; one that dies is started again. SIGTERM
    or Ctrl-C: it may finish its shard within DECONVOY_SHUTDOWN_S; a second time: it ends at once.
    """
    # -P: a folder named `worker` where the user stands must not be taken for ours.
    command = [sys.executable, "-P", "-m", "worker.launch", "--gpus", gpus]
    if metrics_port is not None:
        command += ["--metrics-port", str(metrics_port)]
    if log_format is not None:
        command += ["--log-format", log_format]
    environment = {**os.environ, **log_environment()}
    os.execve(sys.executable, command, environment)  # noqa: S606 (a list of words, no shell)


@click.command(short_help="Check what works here, and say what to do about the rest.")
@click.option(
    "--out",
    metavar="PLACE",
    shell_complete=completers.folders,
    help="Check that this folder or s3://bucket/prefix can hold jobs.",
)
@click.option(
    "--weights", metavar="NAME|FILE", shell_complete=completers.weights, help="Check these weights."
)
@click.option("--certify", is_flag=True, help="Measure how exact the engine is here, with --weights.")
def doctor(out: str | None, weights: str | None, certify: bool) -> int:
    """Example: deconvoy doctor --out results --weights hed --certify

    Prints a line for each part: ok, or a problem and what to do about it. Ends with 1 if there is a problem.
    """
    from producer.doctor import examine

    if certify and weights is None:
        click.get_current_context().fail("--certify needs --weights: say which weights to certify")
    findings = examine(out, weights, certify=certify)
    for finding in findings:
        click.echo(f"{'ok' if finding.ok else 'problem':8}{finding.subject:10}{finding.text}")
    return 0 if all(finding.ok for finding in findings) else 1


@click.command(short_help="Print the script that makes a shell complete words.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: completers.Shell) -> None:
    """Example: eval "$(deconvoy completion bash)"

    The line belongs into ~/.bashrc; with `zsh` in it, into ~/.zshrc after compinit. For fish it is
    `deconvoy completion fish | source`, in ~/.config/fish/config.fish. Then the tab key completes commands,
    options and their values: specs, layers, models, weights, folders.
    """
    click.echo(completers.script(cli, shell), nl=False)


# In the order of the work, which is that of --help.
for _command in (
    run,
    submit,
    status,
    jobs,
    cancel,
    resume,
    fetch,
    links,
    audit,
    findings,
    schedule,
    beat,
    worker,
    doctor,
    completion,
):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. What a user can cause is one line, no traceback."""
    try:
        code = cli.main(arguments, prog_name="deconvoy", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        tell_error(error.message)
        return error.exit_code
    except click.ClickException as error:
        tell_error(line_of(error))
        return error.exit_code
    except click.Abort:
        tell_error("deconvoy: interrupted; the same command goes on from here")
        return _INTERRUPTED
    except DeconvoyError as error:
        tell_error(f"deconvoy: {printable(str(error))}")
        return error.exit_code
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
