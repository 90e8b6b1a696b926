"""What a worker process keeps between shards, and what it does with one message.

No Celery here. torch and the pipeline are imported where they are used: Celery's parent process imports
this module too, and it must stay small and never touch CUDA.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from functools import cache
from typing import TYPE_CHECKING

import redis

from worker.contract import keys, queue
from worker.contract.errors import (
    DeconvoyError,
    DeviceError,
    JobError,
    MessageError,
    SettingsError,
    WeightsError,
)
from worker.contract.jobs import Job, Request, ShardMessage
from worker.contract.settings import Settings, load_settings
from worker.storage import Store, open_store

if TYPE_CHECKING:
    from worker.deconv import Deconvnet

logger = logging.getLogger(__name__)

_PUBLISH_EVERY_S = 0.2


class Live:
    """A job's live counters and errors in Redis.

    They inform and decide nothing: where Redis does not take them, work goes on and the log says so.
    """

    def __init__(self, redis_url: str) -> None:
        self._client = redis.Redis.from_url(redis_url, socket_timeout=10, socket_connect_timeout=10)

    def progress(self, job: str, shard: int, n_done: int, n_failed: int) -> None:
        """Publish how many images of the shard are finished, and how many of them failed."""
        self._put(queue.progress_key(job), str(shard), f"{n_done}/{n_failed}")

    def error(self, job: str, field: str, text: str) -> None:
        """Publish that the shard `field`, or the whole job, has failed for good."""
        self._put(queue.errors_key(job), field, text)

    def _put(self, key: str, field: str, value: str) -> None:
        try:
            with self._client.pipeline(transaction=False) as pipe:
                pipe.hset(key, field, value)
                pipe.expire(key, queue.LIVE_KEYS_TTL_S)
                pipe.execute()
        except redis.RedisError as error:
            logger.warning("Redis did not take %s of %s: %s", field, key, error)


class Runtime:
    """One worker process: its settings, its line to Redis, and the network that is loaded."""

    def __init__(self, settings: Settings) -> None:
        if settings.redis_url is None:
            raise SettingsError("DECONVOY_REDIS_URL is not set: name the Redis that holds the queue")
        self._settings = settings
        self._live = Live(settings.redis_url)
        self._engine_key: tuple[str, str, str] | None = None
        self._engine: Deconvnet | None = None
        self._certificate: bytes | None = None

    def work(self, body: object) -> None:
        """Do what one message asks. What cannot be done is logged and published, never raised.

        None of these errors is tried again by itself: the same shard would fail in the same way. To
        submit the job again enqueues what is missing.
        """
        try:
            message = ShardMessage.from_body(body)
        except MessageError as error:
            logger.error("refused a message: %s", error)
            return
        try:
            self._work(message)
        except DeconvoyError as error:
            self.record_failure(message, error)

    def record_failure(self, message: ShardMessage, error: DeconvoyError) -> None:
        """Log and publish that a shard, or the job if weights or device are at fault, has failed."""
        whole_job = isinstance(error, WeightsError | DeviceError)
        logger.error("job %s shard %d: %s", message.job, message.shard, error)
        field = queue.WHOLE_JOB if whole_job else str(message.shard)
        self._live.error(message.job, field, f"{type(error).__name__}: {error}")

    def _work(self, message: ShardMessage) -> None:
        from worker.pipeline import Limits, run_shard

        store = open_store(message.place)
        job = _open_job(store, message)
        limits = Limits(
            max_image_bytes=self._settings.max_image_bytes,
            max_image_pixels=self._settings.max_image_pixels,
        )
        published_at = 0.0

        def on_image(n_done: int, n_failed: int) -> None:
            nonlocal published_at
            if time.monotonic() - published_at >= _PUBLISH_EVERY_S:
                published_at = time.monotonic()
                self._live.progress(job.id, message.shard, n_done, n_failed)

        engine = self._engine_for(job.request)
        result = run_shard(store, job, message.shard, engine, limits, on_image)
        self._live.progress(job.id, message.shard, result.n_images, result.n_failed)
        logger.info(
            "job %s shard %d: %d images, %d failed", job.id, result.shard, result.n_images, result.n_failed
        )
        self._finish_if_complete(store, job, engine)

    def _finish_if_complete(self, store: Store, job: Job, engine: Deconvnet) -> None:
        """Write what stands beside the shards, once none is missing. Doing it twice gives the same files.

        The page comes last: where it stands, the job is finished, and nobody waits for this worker.
        """
        from worker.pipeline import compact, missing_shards, stage_seconds
        from worker.report import write_report

        if missing_shards(store, job):
            return
        self._certify(store, engine)
        table = compact(store, job)
        write_report(store, job, table, stage_seconds(store, job))
        logger.info("job %s: finished", job.id)

    def _certify(self, store: Store, engine: Deconvnet) -> None:
        """Leave beside the job what holds on the machine that finished it; measured once a network."""
        from worker.deconv import certify

        if self._certificate is None:
            self._certificate = json.dumps(certify(engine).to_dict(), indent=2).encode() + b"\n"
        store.write(keys.CERTIFICATE, self._certificate)

    def _engine_for(self, request: Request) -> Deconvnet:
        """The network that the request names, loaded once. Raises WeightsError, DeviceError."""
        from worker.deconv import Deconvnet

        wanted = (request.weights.name, request.model, request.precision)
        if self._engine is None or self._engine_key != wanted:
            # The old one goes first: two may not fit a GPU's memory.
            self._engine = self._certificate = None
            self._engine = Deconvnet.load(
                request.weights.name,
                model=request.model,
                device=self._settings.device,
                precision=request.precision,
                cache_dir=self._settings.cache_dir.expanduser(),
            )
            self._engine_key = wanted
        loaded = self._engine.weights.sha256
        if request.weights.sha256 not in (None, loaded):
            raise WeightsError(
                f"weights {request.weights.name}: sha256 is {loaded[:12]}… here, but "
                f"{str(request.weights.sha256)[:12]}… in the job: give this worker the file of the job"
            )
        return self._engine


@cache
def process_runtime() -> Runtime:
    """The runtime of this process. Raises SettingsError."""
    return Runtime(load_settings())


def _open_job(store: Store, message: ShardMessage) -> Job:
    job = Job.from_json(store.read(keys.JOB), store.place)
    if job.id != message.job or message.shard >= job.n_shards:
        raise JobError(
            f"the message's shard {message.shard} of job {message.job} is not one of job {job.id} "
            f"({job.n_shards} shards), which stands at {store.place}: submit the job again"
        )
    return job


def _describe_machine() -> dict[str, object]:
    """What this machine computes with, for `deconvoy doctor`."""
    import torch

    n_gpus = torch.cuda.device_count()
    return {
        "torch": torch.__version__,
        "gpus": [torch.cuda.get_device_name(index) for index in range(n_gpus)],
        "cpu_threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_describe_machine()) + "\n")
