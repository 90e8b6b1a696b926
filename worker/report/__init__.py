"""The pages of jobs: self-contained HTML.

Of a job: one article figure a photograph, failures, timings. `model` is what that page says, read from the
index and the store; `page.html` and `page.css` are how it looks; `page` puts them together. There is no
script in it, and its policy allows none.

Of an audit: the atlas of units, images, findings. `audit_model` is what it says, `audit.html`, `audit.css`
and `audit*.js` are how it looks and answers, `sprites` makes the pictures of its single file; `audit_page`
puts them together. Its policy allows this one script.
"""

from worker.report.audit_page import write_audit_report
from worker.report.page import write_report

__all__ = ["write_audit_report", "write_report"]
