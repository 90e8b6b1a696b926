"""The pages' templates, styles and scripts, which lie beside this file."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_HERE = Path(__file__).parent


def environment() -> Environment:
    """The templates by their file's name. What is put into one is escaped, unless it is Markup."""
    return Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def own_text(*names: str) -> Markup:
    """The text of these files, one after the other; not escaped, for they hold nothing of a user's."""
    text = "\n".join((_HERE / name).read_text(encoding="utf-8") for name in names)
    return Markup(text)  # noqa: S704 (our own files)
