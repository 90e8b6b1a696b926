"""A shard's way: read, decode, batch, project, encode, write, record. Knows no Celery."""
