"""Shell completion, as real shells do it: the keys that a user presses, and what stands on the line then."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click
import pytest

from producer import completers
from producer.completers import joined
from tests.programs import missing
from tests.unit.terminals import TypedShell
from tests.unit.test_cli import HEAVY
from worker.contract.architectures import MODELS, layers_of
from worker.contract.specs import parse_spec
from worker.contract.weights_names import NAMED_WEIGHTS

SCRIPTS = str(Path(sys.executable).parent)
BASH = ["bash", "--norc", "--noprofile", "-i"]
ZSH = ["zsh", "-f", "-i"]

needs_zsh = pytest.mark.skipif(missing("zsh"), reason="zsh is not installed")
needs_fish = pytest.mark.skipif(missing("fish"), reason="fish is not installed")


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{SCRIPTS}:{os.environ['PATH']}", "INPUTRC": "/dev/null", "TERM": "dumb"}


def offered(*words: str) -> list[tuple[str, str]]:
    """What click's protocol for fish offers for the last of these words: its kind, and the word itself."""
    protocol = {
        "_DECONVOY_COMPLETE": "fish_complete",
        "COMP_WORDS": " ".join(("deconvoy", *words)),
        "COMP_CWORD": words[-1],
    }
    ended = subprocess.run(
        ["deconvoy"], env={**environment(), **protocol}, capture_output=True, text=True, check=True
    )
    assert ended.stderr == ""
    lines = [line.partition("\t")[0].partition(",") for line in ended.stdout.splitlines()]
    return [(kind, word) for kind, _, word in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the user stands: with photographs, a job, and a file of weights."""
    here = tmp_path_factory.mktemp("here")
    for name in ("my photos", "jobs"):
        (here / name).mkdir()
    (here / "net.pth").touch()
    return here


@pytest.fixture(scope="module")
def bash(folder: Path) -> Iterator[TypedShell]:
    with closing(TypedShell(BASH, 'eval "$(deconvoy completion bash)"', folder, environment())) as shell:
        yield shell


@pytest.fixture(scope="module")
def zsh(folder: Path) -> Iterator[TypedShell]:
    setup = 'autoload -U compinit && compinit -u -D && eval "$(deconvoy completion zsh)"'
    with closing(TypedShell(ZSH, setup, folder, environment())) as shell:
        yield shell


# The keys that are pressed, and the words that stand there then.
WORDS = [
    ("deconvoy findi\t", "deconvoy findings"),
    ("deconvoy run --precis\t", "deconvoy run --precision"),
    ("deconvoy run --format w\t", "deconvoy run --format webp"),
    ("deconvoy run --spec pool5:m\t", "deconvoy run --spec pool5:max"),
    ("deconvoy run --model vgg19 --spec conv5_4:t\t", "deconvoy run --model vgg19 --spec conv5_4:top:9"),
    ("deconvoy run --spec pool1:unit:\t", "deconvoy run --spec pool1:unit:0"),
    (
        "deconvoy audit jobs --layer relu5_3\t",
        "deconvoy audit jobs --layer relu5_3",
    ),
    ("deconvoy run --weights im\t", "deconvoy run --weights imagenet"),
    ("deconvoy run --weights random:\t", "deconvoy run --weights random:0"),
    ("deconvoy run --weights net.\t", "deconvoy run --weights net.pth"),
    ("deconvoy schedule rem\t", "deconvoy schedule remove"),
    ("deconvoy status jo\t", "deconvoy status jobs"),
]


@pytest.mark.parametrize(
    ("keys", "line"), [*WORDS, ("deconvoy run --spec=pool5:m\t", "deconvoy run --spec=pool5:max")]
)
def test_bash_completes_the_last_word(bash: TypedShell, keys: str, line: str) -> None:
    assert bash.words_after(keys) == line.split()


def test_bash_completes_a_source_with_a_space(bash: TypedShell) -> None:
    assert bash.words_after("deconvoy run my\t") == ["deconvoy", "run", "my photos"]


@needs_zsh
@pytest.mark.parametrize(("keys", "line"), WORDS)
def test_zsh_completes_the_last_word(zsh: TypedShell, keys: str, line: str) -> None:
    assert zsh.words_after(keys) == line.split()


@needs_fish
@pytest.mark.parametrize(("keys", "line"), WORDS)
def test_fish_completes_the_last_word(folder: Path, keys: str, line: str) -> None:
    code = 'deconvoy completion fish | source; complete --do-complete "$argv[1]"'
    ended = subprocess.run(
        ["fish", "--no-config", "-c", code, keys.rstrip("\t")],
        env=environment(),
        cwd=folder,
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 0, ended.stderr
    words = [each.partition("\t")[0].removesuffix("/") for each in ended.stdout.splitlines()]
    assert words == [line.split()[-1]]


@pytest.mark.parametrize("model", MODELS)
def test_every_spec_that_is_offered_can_be_used_and_every_layer_is_there(model: str) -> None:
    context = click.Context(click.Command("run"))
    context.params["model"] = model
    option = click.Option(["--spec"])

    specs = [item.value for item in completers.specs(context, option, "")]

    assert [str(parse_spec(spec, model)) for spec in specs] == specs
    names = [layer.name for layer in layers_of(model)]
    assert list(dict.fromkeys(spec.partition(":")[0] for spec in specs)) == names
    assert [item.value for item in completers.layers(context, option, "")] == names


def test_of_a_layer_each_selection_is_offered() -> None:
    assert offered("run", "--spec", "pool1") == [
        ("plain", "pool1:all"),
        ("plain", "pool1:max"),
        ("plain", "pool1:top:9"),
        ("plain", "pool1:unit:0"),
    ]


def test_names_of_weights_are_offered_and_else_files() -> None:
    assert offered("run", "--weights", "") == [
        *(("plain", name) for name in NAMED_WEIGHTS),
        ("plain", "random:0"),
    ]
    assert [kind for kind, _ in offered("run", "--weights", "./")] == ["file"]


def test_the_last_audit_is_offered_as_baseline_and_else_folders() -> None:
    assert offered("audit", "--baseline", "l") == [("plain", "last")]
    assert [kind for kind, _ in offered("audit", "--baseline", "audits/")] == ["dir"]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["run", "--spec", "pool1", ":", "max"], ["run", "--spec", "pool1:max"]),
        (["--spec", "pool1", ":"], ["--spec", "pool1:"]),
        (["--spec", "pool3", ":", "unit", ":", "7,12"], ["--spec", "pool3:unit:7,12"]),
        (["s3", ":", "//bucket", "--out"], ["s3://bucket", "--out"]),
        (["--spec", "=", "po"], ["--spec", "po"]),
        (["--spec", "=", "pool1", ":", "a"], ["--spec", "pool1:a"]),
        # click takes away an = at the end itself.
        (["--spec", "="], ["--spec", "="]),
        (["--spec", "pool1:max", ""], ["--spec", "pool1:max", ""]),
        (["--spec", "pool1", ":", ""], ["--spec", "pool1:", ""]),
        ([":"], [":"]),
        ([""], [""]),
    ],
)
def test_words_that_bash_has_parted_are_put_together(words: list[str], meant: list[str]) -> None:
    assert joined(words) == meant


def test_completing_loads_nothing_heavy() -> None:
    protocol = {
        "_DECONVOY_COMPLETE": "bash_complete",
        "COMP_WORDS": "deconvoy\nrun\n--spec\np",
        "COMP_CWORD": "3",
    }
    code = (
        "import atexit, sys, producer.cli\n"
        f"atexit.register(lambda: print('heavy:', [m for m in {HEAVY!r} if m in sys.modules]))\n"
        "producer.cli.main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**environment(), **protocol}, capture_output=True, text=True
    )

    assert ended.returncode == 0, ended.stderr
    assert "plain,pool5:max" in ended.stdout
    assert ended.stdout.endswith("heavy: []\n")
