"""What computes: contract, storage, deconvnet, pipeline, report, and Celery's doorway to them."""
