"""From a user's options to a request and the size of its shards. No image is looked at.

Costs are in GMAC: 1e9 multiply-adds of convolutions, the only work that counts here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from pydantic import ValidationError

from worker.contract import architectures
from worker.contract.architectures import Layer
from worker.contract.audits import AuditOptions
from worker.contract.errors import UsageError, WeightsError
from worker.contract.jobs import (
    Layout,
    PictureFormat,
    Precision,
    Preprocessing,
    Request,
    Resize,
    WeightsRef,
)
from worker.contract.paths import expanded
from worker.contract.queue import PRIORITIES, Priority
from worker.contract.specs import DEFAULT_SPECS, LayerSpec, parse_specs
from worker.contract.weights_names import NAMED_WEIGHTS, RANDOM_PREFIX, WEIGHTS_SUFFIXES, is_seed

_SHARD_GMAC = 20_000
"""Minutes on a CPU of two cores, seconds on a GPU: what a death may cost, and a message is worth."""
_MAX_SHARD_SIZE = 1000
_SHARDS_OF_A_LOCAL_RUN = 4
"""A run on one machine has at least this many shards, images permitting, to lose little when stopped."""
_NATIVE_SIZE_PX = 512
"""What images of unknown size are taken to measure when costs are estimated."""


class PlanOptions(TypedDict, total=False):
    """What a user may choose, as the command line and the Python interface take it.

    `shard_size` and `batch_size` are numbers of images, None by their cost and as the worker finds it.
    """

    specs: Sequence[str]
    weights: str
    model: str
    resize: Resize
    size_px: int
    format: PictureFormat
    layout: Layout
    precision: Precision
    shard_size: int | None
    batch_size: int | None
    priority: Priority
    name: str | None


@dataclass(frozen=True)
class Plan:
    """A request, and how it is cut up.

    None: `shard_size` (images) by cost, `batch_size` (images) by the worker, `name` by the first source. With
    `audit` the job is an audit. `id` is what the job is called, whatever it is about; None: by its name and
    what it is about.
    """

    request: Request
    shard_size: int | None = None
    batch_size: int | None = None
    priority: Priority = "normal"
    name: str | None = None
    audit: AuditOptions | None = None
    id: str | None = None


def make_plan(options: PlanOptions) -> Plan:
    """Check the options and settle the request. Raises SpecError, UsageError, WeightsError."""
    model = options.get("model", architectures.DEFAULT_MODEL)
    specs = parse_specs(options.get("specs") or DEFAULT_SPECS, model)
    try:
        request = Request(
            # Spelled one way, so that `4:max` and `pool1:max` are the same job.
            specs=tuple(map(str, specs)),
            model=model,
            weights=resolve_weights(options.get("weights", "imagenet")),
            preprocessing=Preprocessing(
                resize=options.get("resize", "crop"), size_px=options.get("size_px", 224)
            ),
            precision=options.get("precision", "fp32"),
            format=options.get("format", "png"),
            layout=options.get("layout", "files"),
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise UsageError(f"option {field} cannot be {first['input']!r}: {first['msg']}") from error
    plan = Plan(
        request,
        options.get("shard_size"),
        options.get("batch_size"),
        options.get("priority", "normal"),
        options.get("name"),
    )
    if plan.priority not in PRIORITIES:
        raise UsageError(f"priority {plan.priority!r} is unknown: choose from {', '.join(PRIORITIES)}")
    for what, size, most in (("shard", plan.shard_size, 100_000), ("batch", plan.batch_size, 4096)):
        if size is not None and not 1 <= size <= most:
            raise UsageError(f"{what} size {size} cannot be used: choose from 1 to {most}")
    return plan


def resolve_weights(weights: str) -> WeightsRef:
    """A name, `random:SEED` or a file, as the job holds it. A file is hashed. Raises WeightsError."""
    if weights in NAMED_WEIGHTS:
        return WeightsRef(name=weights, sha256=NAMED_WEIGHTS[weights])
    if weights.startswith(RANDOM_PREFIX):
        seed = weights.removeprefix(RANDOM_PREFIX)
        if not is_seed(seed):
            raise WeightsError(f"weights {weights!r}: SEED of random:SEED is a whole number from 0")
        return WeightsRef(name=weights)
    path = expanded(weights).absolute()
    names = ", ".join(NAMED_WEIGHTS)
    if path.suffix.lower() not in WEIGHTS_SUFFIXES:
        raise WeightsError(
            f"weights {weights!r} are unknown: choose one of {names}, "
            f"or a file that ends in {', '.join(WEIGHTS_SUFFIXES)}"
        )
    try:
        with path.open("rb") as file:
            return WeightsRef(name=str(path), sha256=hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise WeightsError(f"weights {str(path)!r} cannot be read: {error.strerror}") from error


def shard_size_for(plan: Plan, n_images: int, *, local: bool) -> int:
    """Images a shard: what the plan says, else about 20,000 GMAC, at most 1,000, and never none."""
    if plan.shard_size is not None:
        return plan.shard_size
    gmac = image_gmac(plan.request) if plan.audit is None else scan_gmac(plan.request)
    size = max(1, min(_MAX_SHARD_SIZE, int(_SHARD_GMAC / gmac)))
    return min(size, -(-n_images // _SHARDS_OF_A_LOCAL_RUN)) if local else size


def image_gmac(request: Request) -> float:
    """What one image costs: forward to the deepest layer, then down once for each reconstruction."""
    down = sum(_down_gmac(request.model, spec, _size_px(request)) for spec in request.parsed_specs())
    return scan_gmac(request) + down


def scan_gmac(request: Request) -> float:
    """What one image costs an audit's scan: forward to the deepest layer."""
    deepest = max((spec.layer for spec in request.parsed_specs()), key=lambda layer: layer.index)
    return dense_gmac(request.model, deepest, _size_px(request))


def dense_gmac(model: str, layer: Layer, size_px: int) -> float:
    """The whole map between the pixels and `layer`: up or down, both cost the same."""
    below = architectures.layers_of(model)[: layer.index + 1]
    return sum(_mac(conv, size_px // conv.stride) for conv in below if conv.kind == "conv") / 1e9


def window_gmac(model: str, layer: Layer, size_px: int) -> float:
    """One activation of `layer` down to pixels, on its receptive field alone."""
    side, mac = 1, 0
    for below in reversed(architectures.layers_of(model)[: layer.index + 1]):
        if below.kind == "pool":
            side *= 2
        elif below.kind == "conv":
            side = min(side + 2, size_px // below.stride)
            mac += _mac(below, side)
    return mac / 1e9


def _size_px(request: Request) -> int:
    return _NATIVE_SIZE_PX if request.preprocessing.resize == "native" else request.preprocessing.size_px


def _down_gmac(model: str, spec: LayerSpec, size_px: int) -> float:
    if spec.is_whole_map:
        return dense_gmac(model, spec.layer, size_px)
    return spec.n_results * window_gmac(model, spec.layer, size_px)


def _mac(conv: Layer, side: int) -> int:
    return conv.in_channels * conv.channels * 9 * side * side
