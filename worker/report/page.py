"""Renders the page and puts it into the job's store."""

from __future__ import annotations

from worker.contract.jobs import Job
from worker.contract.keys import REPORT
from worker.pipeline import Excerpt
from worker.report.model import page_of
from worker.report.templates import environment, own_text
from worker.storage import Store


def write_report(store: Store, job: Job, excerpt: Excerpt) -> None:
    """Write `report/index.html`: one file that needs no other and no network.

    `excerpt` is of the job's index; pictures are read from `store`. Raises a StorageError, also where a
    picture that the index names is gone.
    """
    templates = environment()
    templates.filters["number"] = number
    page = page_of(store, job, excerpt)
    html = templates.get_template("page.html").render(page=page, css=own_text("page.css"))
    store.write(REPORT, html.encode())


def number(value: float) -> str:
    """Four significant digits, written plainly: 0.00321, 12.35, 1,234, 2.1e+09."""
    if 1000 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.4g}"
