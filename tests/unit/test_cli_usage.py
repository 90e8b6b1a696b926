"""What a wrong command line gets: one line that names command, option and what to do; and help."""

from __future__ import annotations

import shlex

import click
import pytest

from producer.cli import cli, main
from tests.unit.results.made import clean_environment, command
from tests.unit.terminals import on_a_terminal
from tests.unit.test_docs import commands_of

EVERY = [("", cli), *commands_of(cli)]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("fly", "deconvoy: no such command fly; see deconvoy --help"),
        ("rum photos", "deconvoy: no such command rum; did you mean run? see deconvoy --help"),
        ("--verison", "deconvoy: no such option --verison; did you mean --version? see deconvoy --help"),
        ("--version=3", "deconvoy: option '--version' does not take a value"),
        ("run", "deconvoy run: SOURCE is missing; see deconvoy run --help"),
        ("run a", "deconvoy run: --out is missing: write --out PLACE; see deconvoy run --help"),
        ("run a --out", "deconvoy run: --out needs a value: write --out PLACE; see deconvoy run --help"),
        (
            "run a --out o --sise 3",
            "deconvoy run: no such option --sise; did you mean --size? see deconvoy run --help",
        ),
        (
            "run a --out o --size 31",
            "deconvoy run: --size: 31 is not in the range 32<=x<=4096; see deconvoy run --help",
        ),
        (
            "run a --out o --size big",
            "deconvoy run: --size: 'big' is not a valid whole number; see deconvoy run --help",
        ),
        (
            "run a --out o --format jpeg",
            "deconvoy run: --format: 'jpeg' is not one of 'png', 'webp', 'npy'; see deconvoy run --help",
        ),
        (
            "run a --out o --json=1",
            "deconvoy run: --json takes no value: write --json alone; see deconvoy run --help",
        ),
        (
            "run a --out o -qv",
            "deconvoy run: --quiet and --verbose exclude each other: leave out one of them; "
            "see deconvoy run --help",
        ),
        (
            "audit a --out o --local --wait",
            "deconvoy audit: --local waits anyway: leave out --wait; see deconvoy audit --help",
        ),
        (
            "doctor --certify",
            "deconvoy doctor: --certify needs --weights: say which weights to certify; "
            "see deconvoy doctor --help",
        ),
        ("status a b", "deconvoy status: got unexpected extra argument (b); see deconvoy status --help"),
        (
            "schedule lst",
            "deconvoy schedule: no such command lst; did you mean list? see deconvoy schedule --help",
        ),
        ("schedule add", "deconvoy schedule add: NAME is missing; see deconvoy schedule add --help"),
        (
            "schedule add nightly --cron daily -- audit photos --out",
            "deconvoy schedule add: option '--out' requires an argument; see deconvoy schedule add --help",
        ),
        (
            "schedule add nightly --cron daily -- audit photos",
            "deconvoy audit: --out is missing: write --out PLACE; see deconvoy audit --help",
        ),
        ("help rnu", "deconvoy: no such command rnu; did you mean run? see deconvoy --help"),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: str, line: str
) -> None:
    # Where nobody listens: what is wrong is found before anybody is asked.
    monkeypatch.setenv("DECONVOY_REDIS_URL", "unix:///no/such.sock")
    assert main(arguments.split()) == 2
    assert capsys.readouterr() == ("", line + "\n")


def test_what_is_typed_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--\x1b[2Jout\n"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "\x1b" not in line
    assert r"--\x1b[2Jout\n" in line


@pytest.mark.parametrize("arguments", [[], ["schedule"]])
def test_without_a_command_help_goes_to_stderr_and_it_counts_as_wrong_use(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(arguments) == 2
    without = capsys.readouterr()
    assert main([*arguments, "--help"]) == 0
    assert without == ("", capsys.readouterr().out)


@pytest.mark.parametrize("command", [[], ["run"], ["schedule"], ["schedule", "add"]])
def test_help_before_a_command_is_help_after_it(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert main(["help", *command]) == 0
    before = capsys.readouterr()
    assert main([*command, "--help"]) == 0
    assert before == capsys.readouterr()
    assert before.out.startswith("Usage: " + " ".join(["deconvoy", *command]))


def test_commands_are_listed_in_the_order_of_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    commands = capsys.readouterr().out.partition("Commands:\n")[2]

    assert [line.split()[0] for line in commands.splitlines()] == list(cli.commands)
    assert list(cli.commands)[:6] == ["run", "submit", "status", "jobs", "cancel", "resume"]


@pytest.mark.parametrize(("name", "command"), EVERY)
def test_help_shows_an_example_that_can_be_copied_and_used(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    command: click.Command,
) -> None:
    words = name.split()
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*words, "--help"]) == 0
    paragraphs = capsys.readouterr().out.split("\n\n")
    example = paragraphs[1].strip().removeprefix("Example: ")
    lines = example.splitlines()
    # No line is broken but by the example's own backslash.
    assert all(line.endswith("\\") for line in lines[:-1])

    arguments = shlex.split(example.replace("\\\n", ""))
    if arguments[0] == "eval":
        assert arguments == ["eval", "$(deconvoy completion bash)"]
        return
    while "=" in arguments[0]:
        arguments.pop(0)
    assert arguments[: len(words) + 1] == ["deconvoy", *words]
    if not isinstance(command, click.Group):
        context = command.make_context("deconvoy", arguments[len(words) + 1 :])
        assert context.args == []


@pytest.mark.parametrize(("name", "command"), EVERY)
def test_every_option_says_what_it_does_and_none_takes_a_text_without_a_name(
    name: str, command: click.Command
) -> None:
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, option.opts
            metavar = option.make_metavar(click.Context(command))
            assert option.is_flag or metavar not in ("TEXT", "INTEGER", "WHOLE NUMBER"), option.opts


@pytest.mark.parametrize("arguments", [["--help"], ["rum"], ["--version"]])
def test_a_terminal_gets_no_colours_in_help_versions_and_errors(arguments: list[str]) -> None:
    environment = clean_environment(TERM="xterm-256color", FORCE_COLOR="1")
    ended = on_a_terminal(command(*arguments), environment)

    assert "\x1b" not in ended.stdout + ended.terminal
    assert ended.stdout or ended.terminal
