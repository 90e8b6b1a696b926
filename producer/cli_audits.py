"""The commands about audits: `audit` and `findings`."""

# A command's docstring is its help, which opens with an example and not with a sentence.
# ruff: noqa: D400, D415

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import click

from producer import completers
from producer.cli_jobs import conclude
from producer.options import audit_options, json_option, verbosity_options
from producer.terminal import Verbosity, printable, tell, tell_error, verbosity

if TYPE_CHECKING:
    from producer.audits import AuditPlanOptions
    from producer.jobs import JobHandle
    from producer.status import JobStatus
    from worker.contract.audits import Finding, Severity

GRAVE_FINDINGS = 4

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _fail_on_option(command: _Command) -> _Command:
    """Add --fail-on."""
    return click.option(
        "--fail-on",
        type=click.Choice(["info", "warning", "error"]),
        help="End with 4 if a finding is as grave as that.",
    )(command)


@click.command(short_help="Look at what a network sees in a data set, unit by unit.")
@audit_options
@click.option("--local", is_flag=True, help="Do it on this machine alone, as run does.")
@click.option("--wait", is_flag=True, help="Show progress until it is finished.")
@_fail_on_option
@json_option
@verbosity_options("With --local: show the workers' log in full as well.")
def audit(
    sources: tuple[str, ...],
    out: str,
    local: bool,
    wait: bool,
    fail_on: Severity | None,
    as_json: bool,
    **options: Unpack[AuditPlanOptions],
) -> int:
    """Example: deconvoy audit photos/ --out audits --local --baseline last

    Statistics of every unit, the images that excite it most with what they excite it by, duplicates,
    outliers, and what differs from the baseline. Enqueued for a cluster's workers as `submit` does it, or
    with --local done here. The same command again is the same audit. SOURCE is as for `run`.
    """
    from producer.audits import audit as submit_audit
    from producer.audits import plan_audit
    from producer.jobs import closing, prepare
    from producer.local import ending_on_signals, work_here
    from producer.progress import showing_job
    from worker.contract.settings import load_settings

    if local and wait:
        click.get_current_context().fail("--local waits anyway: leave out --wait")
    if verbosity() is Verbosity.VERBOSE and not local:
        click.get_current_context().fail("--verbose shows the log of this machine's workers: add --local")
    if fail_on and not (local or wait):
        click.get_current_context().fail("--fail-on needs findings: add --local or --wait")
    if local:
        with ending_on_signals():
            settings = load_settings()
            plan = plan_audit(sources, out, options)
            handle = prepare(list(sources), out, plan, local=True, allowed_roots=settings.allowed_roots)
            _tell_of(handle)
            return _conclude(handle, work_here(handle, settings), fail_on, as_json)
    with closing(submit_audit(sources, out=out, **options)) as handle:
        _tell_of(handle)
        if not wait:
            click.echo(json.dumps({"id": handle.id, "place": handle.place}) if as_json else handle.id)
            return 0
        with showing_job() as show:
            ended = handle.wait(show)
        return _conclude(handle, ended, fail_on, as_json)


@click.command(short_help="List what an audit has found.")
@click.argument("audit", shell_complete=completers.folders)
@_fail_on_option
@json_option
def findings(audit: str, fail_on: Severity | None, as_json: bool) -> int:
    """Example: deconvoy findings audits/photos-1a2b3c4d5e --fail-on warning

    Prints severity, kind, subject and reason of each finding of a finished audit, the gravest first. AUDIT
    is the audit's place, which works without Redis, or its id.
    """
    from producer.findings import read_findings
    from producer.jobs import closing, open_job

    with closing(open_job(audit)) as handle:
        found = read_findings(handle)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found]))
    else:
        for finding in found:
            click.echo(_as_line(finding))
    return GRAVE_FINDINGS if _grave(found, fail_on) else 0


def _tell_of(handle: JobHandle) -> None:
    job = handle.job
    tell(
        f"audit {job.id}: {job.n_images} images in {job.n_shards} shards, {job.n_atlas_shards} of the atlas, "
        f"at {handle.place}"
    )
    if job.audit is not None and job.audit.baseline is not None:
        tell(f"compared with {job.audit.baseline}")


def _conclude(handle: JobHandle, status: JobStatus, fail_on: Severity | None, as_json: bool) -> int:
    """Print the audit's result, and on stderr how many findings there are and those that are too grave."""
    from producer.findings import read_findings
    from worker.contract.audits import SEVERITIES

    found = read_findings(handle)
    numbers = Counter(finding.severity for finding in found)
    tell("findings: " + ", ".join(f"{numbers[severity]} {severity}" for severity in reversed(SEVERITIES)))
    grave = _grave(found, fail_on)
    for finding in grave:
        tell_error(_as_line(finding))
    code = conclude(handle, status, as_json)
    return GRAVE_FINDINGS if grave else code


def _grave(found: Sequence[Finding], fail_on: Severity | None) -> list[Finding]:
    from producer.findings import at_least

    return at_least(found, fail_on) if fail_on else []


def _as_line(finding: Finding) -> str:
    return printable(f"{finding.severity:8}{finding.kind:18}{finding.subject}: {finding.why}")
