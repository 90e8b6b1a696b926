"""The documents say what there is: commands, options, settings, columns, layers, keys, targets, specs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from docs import make_commands
from producer.cli import cli
from tests.documents import DOCUMENTS, ROOT, blocks, cells, name_of, table, text_of
from worker import app
from worker.contract import queue
from worker.contract.architectures import MODELS, Layer, layers_of
from worker.contract.records import SCHEMA
from worker.contract.settings import Settings
from worker.contract.specs import parse_spec
from worker.deconv.geometry import Size, receptive_window

README = text_of("README.md")
MANUAL = "\n".join(text_of(name_of(path)) for path in DOCUMENTS if path.name != "CHANGELOG.md")
EXPLAINED = MANUAL.replace(text_of("docs/commands.md"), "")
"""What people wrote: the help of the commands does not explain itself."""

KINDS = {"bash", "promql", "python", "sql", "text"}
"""What is after a fence: all but `text` is run, or at least parsed."""


def commands_of(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Each command by its whole name, those of groups too."""
    for name, command in group.commands.items():
        yield before + name, command
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{before}{name} ")


OPTIONS = sorted(
    {
        (name, option)
        for name, command in commands_of(cli)
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }
)
LAYER = r"(?:conv\d_\d|relu\d_\d|pool\d|\d+)"
SPEC = re.compile(rf"(?<![\w:]){LAYER}:(?:all|max|top:\d+|unit:\d+(?:,\d+)*)(?![\w:])")


def test_every_command_is_in_the_readme_and_no_other() -> None:
    documented = set(re.findall(r"^\| `deconvoy (\w+)", README, re.MULTILINE))
    assert documented == set(cli.commands)


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_every_option_is_explained(command: str, option: str) -> None:
    assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", EXPLAINED), f"deconvoy {command} {option}"


def test_no_option_is_documented_that_does_not_exist() -> None:
    known = {option for _, option in OPTIONS} | {"--help", "--version"}
    text = "\n".join(line for line in README.splitlines() if not line.startswith("![") and "pip " not in line)
    benchmark = {"--units", "--quick"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - benchmark <= known


def test_the_page_of_commands_is_as_they_say_themselves() -> None:
    assert text_of("docs/commands.md") == make_commands.page(), "run make docs"
    headings = re.findall(r"^## deconvoy ?(.*)$", text_of("docs/commands.md"), re.MULTILINE)
    assert set(headings) == {"", *(name for name, _ in commands_of(cli))}


def test_every_setting_has_its_default_on_its_page_and_there_is_no_other() -> None:
    lines = [cells(line) for line in text_of("docs/settings.md").splitlines() if line.startswith("| `DECON")]
    expected = {
        f"DECONVOY_{name.upper()}": "unset" if field.default in (None, ()) else str(field.default)
        for name, field in Settings.model_fields.items()
    }
    assert {line[0].strip("`"): line[1] for line in lines} == expected


def test_every_column_is_documented_with_its_type_in_order() -> None:
    documented = [(row[0].strip("`"), row[1]) for row in table("docs/index-columns.md", "")]
    types = {"double": "float64", "float": "float32", "list<item: double>": "list of float64"}
    types |= {"list<element: double>": "list of float64"}
    expected = [(field.name, types.get(str(field.type), str(field.type))) for field in SCHEMA]
    assert documented == expected


def test_columns_that_are_always_set_are_those_that_cannot_be_null() -> None:
    always = {row[0].strip("`") for row in table("docs/index-columns.md", "") if row[2] == "always"}
    assert always == {field.name for field in SCHEMA if not field.nullable}


def test_every_celery_setting_is_documented() -> None:
    shared = queue.shared_config(10)
    names = {*shared, *shared["broker_transport_options"], *app.TASK_OPTIONS, *app.WORKER_OPTIONS}
    names |= {"task_time_limit", "imports"}
    text = text_of("docs/queue.md")
    assert {name for name in names if f"`{name}`" not in text} == set()


def keys_in(path: Path) -> Iterator[str]:
    """The start of each Redis key that a module makes: what follows the prefix of all, to the next value."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.JoinedStr) or len(node.values) < 2:
            continue
        first, second = node.values[:2]
        if isinstance(first, ast.FormattedValue) and ast.unparse(first.value).endswith("KEY_PREFIX"):
            if isinstance(second, ast.Constant):
                yield queue.KEY_PREFIX + str(second.value)
            else:
                assert isinstance(second, ast.FormattedValue)
                assert ast.unparse(second.value) == "QUEUE"
                yield queue.KEY_PREFIX + queue.QUEUE


def test_every_key_in_redis_is_documented() -> None:
    made = {
        key
        for part in ("producer", "worker")
        for path in (ROOT / part).rglob("*.py")
        for key in keys_in(path)
    }
    assert {"deconvoy:jobs", "deconvoy:alive:", "deconvoy:asking:", "deconvoy:redbeat:"} <= made
    named = re.findall(
        r"`(deconvoy:[^`]+)`", " ".join(row[0] for row in table("docs/queue.md", "## Keys in Redis"))
    )
    documented = {re.sub(r"(JOB|WORKER|NAME|\*)$", "", name) for name in named}
    assert made <= documented
    kombus = {"deconvoy:_kombu.", "deconvoy:unacked_mutex", "deconvoy:deconvoy:dealt"}
    assert documented - made == kombus


def field_px(model: str, layer: Layer) -> int:
    """The side of a layer's receptive field, away from the edges."""
    below = layers_of(model)[: layer.index + 1]
    place = 2048 // layer.stride // 2
    window = receptive_window(below, place, place, Size(2048, 2048))
    return window.right - window.left


def test_every_layer_is_documented_with_its_size_field_and_stride() -> None:
    expected = [
        [
            str(layer.index),
            f"`{layer.name}`",
            str(layer.channels),
            f"{224 // layer.stride} x {224 // layer.stride}",
            f"{field_px('vgg16', layer)} x {field_px('vgg16', layer)}",
            str(layer.stride),
        ]
        for layer in layers_of("vgg16")
    ]
    assert table("docs/layer-specs.md", "## Layers of VGG-16") == expected


def test_every_model_is_documented_with_the_fields_of_its_pools() -> None:
    expected = []
    for model in MODELS:
        layers = layers_of(model)
        if not model.endswith("_bn"):
            pools = [str(field_px(model, layer)) for layer in layers if layer.kind == "pool"]
            n_convs = sum(layer.kind == "conv" for layer in layers)
            expected.append([f"`{model}`", str(n_convs), f"0 to {layers[-1].index}", *pools])
    assert table("docs/layer-specs.md", "## Other models") == expected


def test_the_windows_of_the_mathematics_are_those_of_the_layers() -> None:
    pools = [layer for layer in layers_of("vgg16") if layer.kind == "pool"]
    expected = [
        [f"`{pool.name}`", f"{field_px('vgg16', pool)} x {field_px('vgg16', pool)}"] for pool in pools
    ]
    assert table("docs/mathematics.md", "## Windows") == expected


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", MANUAL, re.MULTILINE))
    assert {"demo", "test", "setup", "lint", "format", "docs"} <= named <= targets


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert text_of(".ci/run").splitlines()[-2:] == ["make lint", "make test"]
    assert re.search(r"^make test$", README, re.MULTILINE)


def test_every_documented_spec_parses() -> None:
    specs = {match.group() for match in SPEC.finditer(MANUAL)}
    assert {"pool5:max", "4:all", "conv4_3:top:9", "pool3:unit:7,12"} <= specs
    for spec in specs:
        parse_spec(spec)


def test_every_block_says_what_it_is() -> None:
    assert [str(block) for block in blocks() if block.language not in KINDS] == []


def test_the_readmes_figures_are_those_of_the_benchmarks() -> None:
    measured = {
        row[0]: row for row in table("docs/benchmarks.md", "## Single activations, 32 units an image")
    }
    section = README.partition("\n## How fast\n")[2].partition("\n## ")[0]
    seconds = {"pool1": "0.062 s", "pool3": "0.384 s", "pool5": "4.93 s"}
    for pool, ours in seconds.items():
        assert measured[pool][1] == ours
        assert f"{ours} from {pool}" in " ".join(section.split())
    ratios = [measured[pool][3].split()[0] for pool in seconds]
    assert f"{ratios[0]}, {ratios[1]} and {ratios[2]} times" in " ".join(section.split())
