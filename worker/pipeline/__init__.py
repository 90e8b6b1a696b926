"""A shard's way: read, decode, batch, forward, project, encode, write, record. Knows no Celery."""

from worker.pipeline.assignment import Assignment, ShardResult
from worker.pipeline.atlas import run_atlas
from worker.pipeline.caution import Caution
from worker.pipeline.engine import AuditEngine, Engine
from worker.pipeline.index import Excerpt, compact
from worker.pipeline.loading import Limits
from worker.pipeline.scan import run_scan
from worker.pipeline.shard import run_shard

__all__ = [
    "Assignment",
    "AuditEngine",
    "Caution",
    "Engine",
    "Excerpt",
    "Limits",
    "ShardResult",
    "compact",
    "run_atlas",
    "run_scan",
    "run_shard",
]
