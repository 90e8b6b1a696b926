"""Write docs/commands.md: the help of every command, as `--help` prints it on a wide terminal.

Run `.venv/bin/python docs/make_commands.py` after a change of the command line; `tests/unit/test_docs.py`
compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from producer.cli import cli

PAGE = Path(__file__).with_name("commands.md")
_WIDTH = 100
_HEAD = """\
# The help of all commands

Made by `make docs` from the commands themselves. [command-line.md](command-line.md) explains them.
"""


def page() -> str:
    """The page as it should stand: a heading and a block for each command, in the order of `--help`."""
    return _HEAD + "".join(f"\n## {name}\n\n```text\n{text}\n```\n" for name, text in helps(cli, "deconvoy"))


def helps(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    """The whole name and the help of a command, then of the commands below it."""
    # Not the terminal's own width: the page is the same wherever it is made.
    settings = {**command.context_settings, "terminal_width": _WIDTH, "max_content_width": _WIDTH}
    context = click.Context(command, parent, info_name=name, **settings)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            below = command.get_command(context, child)
            assert below is not None  # noqa: S101 (it was listed)
            yield from helps(below, child, context)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
