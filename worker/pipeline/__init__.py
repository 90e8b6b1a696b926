"""A shard's way: read, decode, batch, forward, project, encode, write, record. Knows no Celery.

`shard` is an ordinary job's, from top to bottom; `scan` and `atlas` are the two passes of an audit. What they
share: `intake` and `loading` (images as they come), `batches` and `compute` (the network), `threads`,
`stages`. `writing`, `layouts` and `picture` store, `index` joins what all shards have left.
"""

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
