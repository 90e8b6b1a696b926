"""Renders the page and puts it into the job's store."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from worker.contract.jobs import Job
from worker.contract.keys import REPORT
from worker.pipeline import Excerpt
from worker.report.model import page_of
from worker.storage import Store

_HERE = Path(__file__).parent


def write_report(store: Store, job: Job, excerpt: Excerpt) -> None:
    """Write `report/index.html`: one file that needs no other and no network.

    `excerpt` is of the job's index; pictures are read from `store`. Raises a StorageError, also where a
    picture that the index names is gone.
    """
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    # Not escaped: it is our own file, and holds nothing of a user's.
    css = Markup((_HERE / "page.css").read_text(encoding="utf-8"))  # noqa: S704
    html = environment.get_template("page.html").render(page=page_of(store, job, excerpt), css=css)
    store.write(REPORT, html.encode())


def number(value: float) -> str:
    """Four significant digits, written plainly: 0.00321, 12.35, 1,234, 2.1e+09."""
    if 1000 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.4g}"
