"""The application that Flower watches: with the queue's own settings, or it would look at other keys."""

from celery import Celery

from worker.contract import queue
from worker.contract.settings import load_settings

_settings = load_settings()
app = Celery("deconvoy")
app.conf.update(
    queue.shared_config(_settings.shard_time_limit_s),
    broker_url=queue.celery_url(str(_settings.redis_url)),
)
