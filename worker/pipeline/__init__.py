"""A shard's way: read, decode, batch, forward, project, encode, write, record. Knows no Celery."""

from worker.pipeline.caution import Caution
from worker.pipeline.engine import Engine
from worker.pipeline.index import Excerpt, compact
from worker.pipeline.loading import Limits
from worker.pipeline.shard import Assignment, ShardResult, run_shard

__all__ = ["Assignment", "Caution", "Engine", "Excerpt", "Limits", "ShardResult", "compact", "run_shard"]
