"""What a worker process keeps between shards, and what it does with one message.

No Celery here. torch and the pipeline are imported where they are used: Celery's parent process imports
this module too, and it must stay small and never touch CUDA.
"""

from __future__ import annotations

import json
import logging
import time
from functools import partial
from typing import TYPE_CHECKING

import redis

from worker import logs, names
from worker.audit.merge import merge_once
from worker.audit.second_pass import Send, ask_for_atlas
from worker.contract import keys, queue
from worker.contract.errors import (
    BrokerError,
    DeconvoyError,
    DeviceError,
    JobError,
    MessageError,
    SettingsError,
    StorageUnavailable,
    WeightsError,
)
from worker.contract.jobs import Job, Request, ShardMessage
from worker.contract.settings import Settings
from worker.fleet.deliveries import MOST_LOSSES, Deliveries, History
from worker.fleet.live import Live
from worker.fleet.telemetry import Telemetry
from worker.storage import Store, open_store
from worker.storage.standing import is_cancelled, is_complete, is_scanned, still_to_do

if TYPE_CHECKING:
    from worker.deconv import Deconvnet
    from worker.pipeline import Caution, ShardResult

logger = logging.getLogger(__name__)

_PUBLISH_EVERY_S = 0.2
_LONGEST_PAUSE_S = 30.0


class Runtime:
    """One worker process: its settings, its line to Redis, and the network that is loaded.

    `send` puts messages into the queue. Raises SettingsError if the settings name no Redis.
    """

    def __init__(self, settings: Settings, send: Send) -> None:
        if settings.redis_url is None:
            raise SettingsError("DECONVOY_REDIS_URL is not set: name the Redis that holds the queue")
        self._settings = settings
        self._send = send
        client = redis.Redis.from_url(
            settings.redis_url, decode_responses=True, socket_timeout=10, socket_connect_timeout=10
        )
        self._client = client
        self._live = Live(client)
        self._telemetry = Telemetry(client, names.own_name())
        self._deliveries = Deliveries(client, names.own_name())
        self._n_pauses = 0
        self._engine_key: tuple[str, str, str] | None = None
        self._engine: Deconvnet | None = None
        self._certificate: bytes | None = None

    def work(self, body: object) -> bool:
        """Do what one message asks. What cannot be done is logged and published, never raised.

        Returns False if the message is to be given back, because store or queue do not answer. No other
        error is tried again by itself: the same shard would fail in the same way. To submit the job
        again, or to resume it, enqueues what is missing.
        """
        try:
            message = ShardMessage.from_body(body)
        except MessageError as error:
            logger.error("refused a message: %s", error)
            return True
        with self._deliveries.of(message.job, message.shard) as history:
            try:
                self._work(message, history)
            except (StorageUnavailable, BrokerError) as error:
                self._pause(message, error)
                return False
            except DeconvoyError as error:
                self.record_failure(message, error)
        self._n_pauses = 0
        return True

    def record_failure(self, message: ShardMessage, error: DeconvoyError) -> None:
        """Log and publish that a shard, or the job if weights or device are at fault, has failed."""
        whole_job = isinstance(error, WeightsError | DeviceError)
        # Also called in Celery's parent process, whose lines are about no shard.
        with logs.about_shard(message.job, message.shard):
            logger.error("%s", error)
        field = queue.WHOLE_JOB if whole_job else str(message.shard)
        self._live.error(message.job, field, f"{type(error).__name__}: {error}")
        self._telemetry.add_failed_shard()

    def _pause(self, message: ShardMessage, error: StorageUnavailable | BrokerError) -> None:
        """Wait before the message is given back: longer each time, while there is no answer."""
        pause_s = min(2.0**self._n_pauses, _LONGEST_PAUSE_S)
        self._n_pauses += 1
        logger.warning("waiting %.0f s, then giving the shard back: %s", pause_s, error)
        whom = "the store" if isinstance(error, StorageUnavailable) else "the queue"
        self._live.note(message.job, message.shard, f"waiting for {whom}: {error}")
        time.sleep(pause_s)

    def _work(self, message: ShardMessage, history: History) -> None:
        from worker.pipeline import Assignment, Limits, run_atlas, run_scan, run_shard

        store = open_store(message.place)
        job = _open_job(store, message)
        if is_cancelled(store):
            logger.info("the job is cancelled: the shard is dropped")
            return
        if history.losses >= MOST_LOSSES:
            raise JobError(
                f"shard {message.shard} has cost {history.losses} workers their lives and is given up: look "
                "at their logs, then resume the job"
            )
        limits = Limits(
            max_image_bytes=self._settings.max_image_bytes,
            max_image_pixels=self._settings.max_image_pixels,
            allowed_roots=self._settings.allowed_roots,
        )
        published_at = 0.0

        def on_image(n_done: int, n_failed: int) -> None:
            nonlocal published_at
            if time.monotonic() - published_at >= _PUBLISH_EVERY_S:
                published_at = time.monotonic()
                self._live.progress(job.id, message.shard, n_done, n_failed)

        engine = self._engine_for(job.request)
        assignment = Assignment(message.shard, message.attempt, self._caution(message, history))
        is_atlas = message.shard >= job.n_shards
        if is_atlas:
            merge_once(store, job)
        run = run_shard if job.audit is None else run_atlas if is_atlas else run_scan
        result = run(store, job, assignment, engine, limits, on_image)
        self._live.progress(job.id, message.shard, result.n_images, result.n_failed)
        self._live.note(job.id, message.shard, None)
        if result.committed:
            self._count(job, result, is_atlas=is_atlas)
        logger.info("%d images, %d failed", result.n_images, result.n_failed)
        if job.audit is not None and not is_atlas:
            self._end_scan(store, job)
        self._finish_if_complete(store, job, engine)

    def _count(self, job: Job, result: ShardResult, *, is_atlas: bool) -> None:
        self._live.add_work(job.id, result.stages, result.resources)
        # An audit's images were counted when they were scanned.
        n_images, n_failed = (0, 0) if is_atlas else (result.n_images, result.n_failed)
        peak_rss_bytes = result.resources["peak_rss_bytes"]
        self._telemetry.add_shard(n_images - n_failed, n_failed, result.stages, peak_rss_bytes)

    def _caution(self, message: ShardMessage, history: History) -> Caution | None:
        from worker.pipeline import Caution

        if not history.careful:
            return None
        logger.warning("%d workers died of this shard: one image at a time", history.losses)
        on_start = partial(self._deliveries.on_image, message.job, message.shard)
        return Caution(history.suspects, history.quarantined, on_start)

    def _end_scan(self, store: Store, job: Job) -> None:
        """After the last shard of an audit's scan: merge it, and ask for the atlas."""
        if is_scanned(store, job):
            merge_once(store, job)
            todo = still_to_do(store, job)
            if todo.shards:
                ask_for_atlas(job, store.place, todo, self._client, self._send)

    def _finish_if_complete(self, store: Store, job: Job, engine: Deconvnet) -> None:
        """Write what stands beside the shards, once none is missing. Doing it twice gives the same files.

        The page comes last: where it stands, the job is finished, and nobody waits for this worker.
        """
        from worker.audit import finish_audit
        from worker.pipeline import compact
        from worker.report import write_audit_report, write_report

        if not is_complete(store, job):
            return
        self._certify(store, engine)
        if job.audit is None:
            write_report(store, job, compact(store, job))
        else:
            finish_audit(store, job)
            write_audit_report(store, job)
        logger.info("the job is finished")

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
                cache_dir=self._settings.cache_dir,
            )
            self._engine_key = wanted
        loaded = self._engine.weights.sha256
        if request.weights.sha256 not in (None, loaded):
            raise WeightsError(
                f"weights {request.weights.name}: sha256 is {loaded[:12]}… here, but "
                f"{str(request.weights.sha256)[:12]}… in the job: give this worker the file of the job"
            )
        return self._engine


def _open_job(store: Store, message: ShardMessage) -> Job:
    job = Job.from_json(store.read(keys.JOB), store.place)
    n_shards = job.n_shards + job.n_atlas_shards
    if job.id != message.job or message.shard >= n_shards:
        raise JobError(
            f"the message's shard {message.shard} of job {message.job} is not one of job {job.id} "
            f"({n_shards} shards), which stands at {store.place}: submit the job again"
        )
    return job
