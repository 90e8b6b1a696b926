"""A shard's way: read, decode, batch, project, encode, write, record. Knows no Celery."""

from worker.pipeline.engine import Engine
from worker.pipeline.index import compact, missing_shards, stage_seconds
from worker.pipeline.loading import Limits
from worker.pipeline.shard import ShardResult, run_shard

__all__ = ["Engine", "Limits", "ShardResult", "compact", "missing_shards", "run_shard", "stage_seconds"]
