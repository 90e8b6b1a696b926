"""The audit: what its scan says of units and images, and what is to be looked at. No network runs here."""

from worker.audit.comparison import Baseline, open_baseline
from worker.audit.finish import finish_audit
from worker.audit.merge import merge_scan

__all__ = ["Baseline", "finish_audit", "merge_scan", "open_baseline"]
