"""The options that commands which submit a job share. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from producer import completers
from producer.terminal import Verbosity, choose_verbosity
from worker.contract.architectures import DEFAULT_MODEL, MIN_IMAGE_SIZE, MODELS
from worker.contract.formats import PICTURE_FORMATS

_Command = TypeVar("_Command", bound=Callable[..., Any])


class WholeNumber(click.IntRange):
    """A number within bounds. Of what is none click would say that it is no integer range."""

    name = "whole number"


def priority_option(default: str | None) -> Callable[[_Command], _Command]:
    """Add --priority; without a default it is the job's own."""
    return click.option(
        "--priority",
        type=click.Choice(["high", "normal", "low"]),
        default=default,
        show_default="the job's own" if default is None else True,
        help="Whose turn comes first; jobs of one priority take turns.",
    )


# Each destination is a key of `planning.PlanOptions`, and of `audits.AuditPlanOptions`. Choices hold what
# this version can do.
_PLACES = (
    click.argument("sources", nargs=-1, required=True, metavar="SOURCE...", shell_complete=completers.files),
    click.option(
        "--out",
        required=True,
        metavar="PLACE",
        shell_complete=completers.folders,
        help="A folder or s3://bucket/prefix; the job gets a folder of its own in it.",
    ),
)
_NETWORK = (
    click.option(
        "--weights",
        shell_complete=completers.weights,
        metavar="NAME|FILE",
        default="imagenet",
        show_default=True,
        help="imagenet, hed, random:SEED, or a .safetensors, .pth or .pt file.",
    ),
    click.option(
        "--model",
        type=click.Choice(MODELS),
        metavar="MODEL",
        default=DEFAULT_MODEL,
        show_default=True,
        help=f"{', '.join(MODELS)}; with _bn: batch norm, folded in.",
    ),
    click.option(
        "--resize",
        type=click.Choice(["crop", "fit", "native"]),
        default="crop",
        show_default=True,
        help="crop: the centre square; fit: the whole image; native: as it is.",
    ),
    click.option(
        "--size",
        "size_px",
        metavar="PIXELS",
        type=WholeNumber(MIN_IMAGE_SIZE, 4096),
        default=224,
        show_default=True,
        help="Pixels of the square, or of the longer side.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "tf32", "bf16"]),
        default="fp32",
        show_default=True,
        help="fp32 is the reference; tf32 needs an NVIDIA GPU.",
    ),
)
_WORK = (
    click.option(
        "--shard-size",
        type=WholeNumber(1, 100_000),
        metavar="N",
        show_default="by their cost",
        help="Images in a message.",
    ),
    click.option(
        "--batch-size",
        type=WholeNumber(1, 4096),
        metavar="N",
        show_default="the worker finds it",
        help="Images that go forward together.",
    ),
    priority_option(default="normal"),
    click.option(
        "--name", metavar="NAME", show_default="the first source's name", help="Start of the job's id."
    ),
)
_PICTURES = (
    click.option(
        "--spec",
        "specs",
        multiple=True,
        metavar="LAYER:SELECTION",
        shell_complete=completers.specs,
        help="What to project back: pool5:max, conv4_3:top:9, pool3:unit:7,12, 4:all. May be repeated.",
        show_default="pool1 to pool5, each all and max",
    ),
    click.option(
        "--format",
        type=click.Choice([*PICTURE_FORMATS]),
        default="png",
        show_default=True,
        help="How reconstructions are stored; npy holds the numbers themselves.",
    ),
    click.option(
        "--layout",
        type=click.Choice(["files", "tar"]),
        default="files",
        show_default=True,
        help="How pictures lie in the store; tar: one archive for each shard, not a file for each picture.",
    ),
)
_UNITS = (
    click.option(
        "--layer",
        "layers",
        multiple=True,
        shell_complete=completers.layers,
        metavar="LAYER",
        show_default="pool1 to pool5",
        help="A layer to look at, such as conv4_3. May be repeated.",
    ),
    click.option(
        "--top",
        metavar="N",
        type=WholeNumber(1, 25),
        default=9,
        show_default=True,
        help="How many images are shown of each unit: those that excite it most.",
    ),
    click.option(
        "--baseline",
        metavar="PLACE|last",
        shell_complete=completers.baselines,
        help="Compare with this finished audit; last: the newest under --out of the same name and request. "
        "What stands there of an unchanged image is not computed again.",
    ),
    click.option("--recompute", is_flag=True, help="Take no image's numbers from the baseline."),
)


def job_options(command: _Command) -> _Command:
    """Add SOURCE, --out and the options of a job."""
    return _with_options(command, *_PLACES, *_PICTURES, *_NETWORK, *_WORK)


def audit_options(command: _Command) -> _Command:
    """Add SOURCE, --out and the options of an audit."""
    return _with_options(command, *_PLACES, *_UNITS, *_NETWORK, *_WORK)


def json_option(command: _Command) -> _Command:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)


def quiet_option(command: _Command) -> _Command:
    """Add --quiet."""
    return _verbosity_option("-q", "--quiet", Verbosity.QUIET, "Say nothing on stderr but errors.")(command)


def verbosity_options(verbose_help: str) -> Callable[[_Command], _Command]:
    """Add --quiet and --verbose, which exclude each other."""

    def add(command: _Command) -> _Command:
        return quiet_option(_verbosity_option("-v", "--verbose", Verbosity.VERBOSE, verbose_help)(command))

    return add


def _verbosity_option(short: str, long: str, chosen: Verbosity, text: str) -> Callable[[_Command], _Command]:
    def choose(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
        if wanted:
            choose_verbosity(context, chosen)

    return click.option(short, long, is_flag=True, expose_value=False, callback=choose, help=text)


def _with_options(command: _Command, *options: Callable[[Any], Any]) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command
