"""Audits: what a user may choose, and the audit that one is compared with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypedDict, Unpack

from pydantic import ValidationError

from producer.jobs import JobHandle, submit_plan
from producer.planning import Plan, PlanOptions, make_plan
from producer.submission import name_from, standing_job
from worker.contract import jobs as contract
from worker.contract import keys
from worker.contract.audits import DEFAULT_LAYERS, AuditOptions
from worker.contract.errors import JobError, UsageError
from worker.contract.jobs import Precision, Resize
from worker.contract.queue import Priority
from worker.contract.settings import Settings
from worker.storage import open_store

LAST = "last"


class AuditPlanOptions(TypedDict, total=False):
    """What a user may choose, as the command line and the Python interface take it.

    `baseline` is the place of a finished audit, or `last`: the newest one of this name with the same request.
    `shard_size` and `batch_size` are numbers of images, None by their cost and as the worker finds it.
    """

    layers: Sequence[str]
    top: int
    baseline: str | None
    recompute: bool
    weights: str
    model: str
    resize: Resize
    size_px: int
    precision: Precision
    shard_size: int | None
    batch_size: int | None
    priority: Priority
    name: str | None


def audit(
    sources: str | Iterable[str],
    *,
    out: str,
    settings: Settings | None = None,
    **options: Unpack[AuditPlanOptions],
) -> JobHandle:
    """Write an audit under `out` and enqueue it in the Redis of the settings, as `submit` does with a job.

    Raises what `submit` raises, and JobError for a baseline that is no finished audit.
    """
    names = [sources] if isinstance(sources, str) else list(sources)
    return submit_plan(names, out, plan_audit(names, out, options), settings)


def plan_audit(sources: Sequence[str], out: str, options: AuditPlanOptions) -> Plan:
    """Check the options, and find the baseline. Raises UsageError, SpecError, WeightsError, JobError."""
    plan = make_audit_plan(options)
    baseline = options.get("baseline")
    if baseline == LAST:
        name = contract.safe_name(options.get("name") or name_from(sources))
        earlier = finished_audits(out, rf"{name}-[0-9a-f]{{10}}")
        return compared(plan, newest(earlier, plan))
    return plan if baseline is None else compared(plan, _baseline(baseline))


def make_audit_plan(options: AuditPlanOptions) -> Plan:
    """Check the options and settle the request, without a baseline. Raises UsageError, WeightsError."""
    layers = options.get("layers") or DEFAULT_LAYERS
    chosen: PlanOptions = {"specs": [f"{layer}:max" for layer in layers]}
    for option in PlanOptions.__annotations__.keys() & options.keys():
        chosen[option] = options[option]  # type: ignore[literal-required]  # keys of both
    try:
        audit_options = AuditOptions(top=options.get("top", 9), recompute=options.get("recompute", False))
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"option {first['loc'][0]} cannot be {first['input']!r}: {first['msg']}") from error
    return replace(make_plan(chosen), audit=audit_options)


def finished_audits(out: str, pattern: str) -> list[JobHandle]:
    """The finished audits under `out` whose whole id matches, the newest first. Raises StorageError."""
    place = open_store(out)
    found = []
    for job_id in place.folders():
        if re.fullmatch(pattern, job_id) is None:
            continue
        store = open_store(f"{place.place.rstrip('/')}/{job_id}")
        job = standing_job(store)
        if job is not None and job.audit is not None and store.exists(keys.REPORT):
            found.append(JobHandle(job, store, None))
    return sorted(found, key=lambda handle: handle.job.created, reverse=True)


def newest(audits: Iterable[JobHandle], plan: Plan) -> JobHandle | None:
    """The first of `audits` that asks the network the same as the plan; None if there is none."""
    return next((handle for handle in audits if handle.job.request == plan.request), None)


def compared(plan: Plan, baseline: JobHandle | None) -> Plan:
    """The audit that `plan` makes, compared with the one at hand."""
    assert plan.audit is not None  # noqa: S101 (`make_audit_plan` has made it)
    place = None if baseline is None else baseline.place
    return replace(plan, audit=plan.audit.model_copy(update={"baseline": place}))


def _baseline(place: str) -> JobHandle:
    store = open_store(place)
    job = standing_job(store)
    if job is None or job.audit is None or not store.exists(keys.REPORT):
        raise JobError(f"baseline {store.place} is no finished audit: name the place of one, OUT/<its id>")
    return JobHandle(job, store, None)
