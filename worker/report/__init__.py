"""The page of a job: one article figure a photograph, failures, timings. Self-contained HTML.

`model` is what the page says, read from the index and the store; `page.html` and `page.css` are how
it looks; `page` puts them together. There is no script in the page, and its policy allows none.
"""

from worker.report.page import write_report

__all__ = ["write_report"]
