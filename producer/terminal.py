"""What is said on stderr."""

from __future__ import annotations

import click


def tell(line: str) -> None:
    """Print a line on stderr."""
    click.echo(line, err=True)


def printable(text: str) -> str:
    """The text on one line, without what could command a terminal: file names may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
