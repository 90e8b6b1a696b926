"""What producer and workers agree on: layer specs, jobs, keys, records, errors, settings, task names.

Nothing here imports torch, Celery or any other package of this project.
"""
