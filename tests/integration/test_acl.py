"""A Redis with the users of docker/redis/users.acl.example: what deconvoy does works, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from kombu.messaging import Consumer

from producer.broker import Broker
from producer.jobs import submit
from tests.cluster import Deconvoy, start_redis, wait_until
from tests.length import at_length
from tests.secrecy import PASSWORD, check_no_secret
from tests.tls import HOST, tls_before, write_certificate
from worker.app import create_app
from worker.contract import queue
from worker.contract.errors import BrokerError
from worker.contract.jobs import ShardMessage
from worker.contract.settings import Settings
from worker.fleet.leases import Leases

pytestmark = pytest.mark.integration

USERS = Path(__file__).parents[2] / "docker/redis/users.acl.example"
ADMIN = "admin"


@dataclass(frozen=True)
class Guarded:
    """A Redis with these users, and one more who may see what was denied."""

    socket: Path
    admin: redis.Redis

    @property
    def url(self) -> str:
        """As users write it."""
        return f"unix://deconvoy:{quote(PASSWORD, safe='')}@{self.socket}"

    def denied(self) -> list[str]:
        """What was asked for and is not allowed."""
        return [f"{entry['reason']} {entry['object']}" for entry in self.admin.acl_log()]


@pytest.fixture
def guarded(short_folder: Path) -> Iterator[Guarded]:
    digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
    users = short_folder / "users.acl"
    users.write_text(USERS.read_text().replace("CHANGE_ME", digest) + f"user {ADMIN} on nopass ~* &* +@all\n")
    server = start_redis(short_folder, "--aclfile", str(users))
    socket = short_folder / "redis.sock"
    with redis.Redis(
        unix_socket_path=str(socket), username=ADMIN, password="", decode_responses=True
    ) as admin:
        yield Guarded(socket, admin)
    server.terminate()
    server.wait()


@pytest.fixture
def start(deconvoy: Deconvoy, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Starts a command, and gives its log."""
    with ExitStack() as stack:

        def run(*arguments: str, **environment: str) -> Path:
            log = tmp_path / f"{arguments[0]}.log"
            stack.enter_context(deconvoy.logging(log, *arguments, **environment))
            return log

        yield run


def files_below(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


def options(photos: Path, out: Path) -> tuple[str, ...]:
    return (str(photos), "--out", str(out), "--weights", "random:0", "--model", "vgg11", "--size", "32")


def test_a_job_from_submission_to_page_asks_for_nothing_that_is_denied(
    guarded: Guarded, start: Callable[..., Path], deconvoy: Deconvoy, photos: Path, tmp_path: Path
) -> None:
    environment = {"DECONVOY_REDIS_URL": guarded.url, "DECONVOY_LEASE_S": "2"}
    log = start("worker", "--gpus", "none", **environment)
    submitted = deconvoy("submit", *options(photos, tmp_path / "jobs"), "--spec", "pool1:max", **environment)
    assert submitted.returncode == 0, submitted.stderr
    job = submitted.stdout.split()[0]
    report = tmp_path / "jobs" / job / "report/index.html"
    wait_until(report.exists, "the job is finished")
    for command in (("status", job), ("jobs",), ("cancel", job), ("resume", job), ("links", job)):
        ended = deconvoy(*command, **environment)
        assert ended.returncode == 0, ended.stderr
    # An acknowledgement, and the look for what dead workers held, come after.
    wait_until(lambda: not guarded.admin.hlen(queue.UNACKED_KEY), "the messages are acknowledged")
    looks = queue.KEY_PREFIX + "restoring"
    wait_until(lambda: bool(guarded.admin.exists(looks)), "dead workers are looked for")
    assert guarded.denied() == []
    assert {str(key).partition(":")[0] for key in guarded.admin.keys("*")} == {"deconvoy"}
    said = [log.read_text(), submitted.stdout + submitted.stderr]
    check_no_secret([PASSWORD], said, files_below(tmp_path / "jobs"))


def test_a_schedule_and_its_beat_ask_for_nothing_that_is_denied(
    guarded: Guarded, start: Callable[..., Path], deconvoy: Deconvoy, photos: Path, tmp_path: Path
) -> None:
    environment = {"DECONVOY_REDIS_URL": guarded.url}
    audit = ("audit", *options(photos, tmp_path / "audits"), "--layer", "pool1")
    added = deconvoy("schedule", "add", "nightly", "--cron", "* * * * *", "--", *audit, **environment)
    assert added.returncode == 0, added.stderr
    log = start("beat", **environment)
    wait_until(lambda: bool(guarded.admin.exists("deconvoy:redbeat::lock")), "the beat has its lock")
    for command in (("schedule", "list"), ("schedule", "run", "nightly"), ("schedule", "remove", "nightly")):
        ended = deconvoy(*command, **environment)
        assert ended.returncode == 0, (command, ended.stderr)
    assert any(guarded.admin.llen(key) for key in queue.list_keys())
    assert guarded.denied() == []
    said = [log.read_text(), added.stdout + added.stderr]
    check_no_secret([PASSWORD], said, files_below(tmp_path / "audits"))


def test_messages_of_the_dead_come_back_and_events_are_heard(
    guarded: Guarded, start: Callable[..., Path]
) -> None:
    """What a quiet job does not come to: kombu's restoring, a lease that ends, events."""
    app = create_app(Settings(redis_url=guarded.url))
    with redis.Redis.from_url(guarded.url, decode_responses=True) as client:
        message = ShardMessage(job="a-job", place="/nowhere", shard=0).model_dump(mode="json")
        with app.connection_for_write() as connection, app.amqp.Producer(connection) as publisher:
            headers = {queue.JOB_HEADER: "a-job", queue.SHARD_HEADER: 0}
            app.send_task(queue.TASK_SHARD, [message], queue=queue.QUEUE, headers=headers, producer=publisher)
        with app.connection_for_read() as connection:
            channel = connection.default_channel
            got = channel.basic_get(queue.QUEUE)
            assert got is not None
            Leases(client, "dead", 60).hold(got.delivery_tag)
            assert Leases(client, "living", 60).restore_lost() == [("a-job", 0)]
            client.zadd(queue.UNACKED_INDEX_KEY, {"a tag": 0})
            channel.qos.restore_visible()
            channel.qos.restore_unacked_once()
        seen: list[str] = []
        with app.connection_for_read() as connection:
            # As Flower listens.
            receiver = app.events.Receiver(
                connection, handlers={"*": lambda event: seen.append(event["type"])}
            )
            with receiver.get_consumers(partial(Consumer, connection), connection)[0]:
                start("worker", "--gpus", "none", DECONVOY_REDIS_URL=guarded.url)
                wait_until(lambda: drain(connection) or bool(seen), "an event comes")
    assert guarded.denied() == []


def drain(connection: Any) -> bool:
    """Take what has come; False if nothing has."""
    try:
        connection.drain_events(timeout=0.1)
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "other:key"),
        ("SET", "other:key", "1"),
        ("LPUSH", "celery", "x"),
        ("HGETALL", "deconvoys"),
        ("EVAL", "return redis.call('GET', 'other:key')", "0"),
        ("EVAL", "return redis.call('CONFIG', 'GET', 'dir')", "0"),
        ("PUBLISH", "other:channel", "x"),
        ("PSUBSCRIBE", "*"),
        ("KEYS", "*"),
        ("FLUSHALL",),
        ("CONFIG", "SET", "dir", "/"),
        ("ACL", "LIST"),
        ("CLIENT", "LIST"),
        ("MODULE", "LIST"),
        ("SCRIPT", "FLUSH"),
        ("FUNCTION", "LIST"),
        ("SAVE",),
        ("SHUTDOWN",),
        ("REPLICAOF", "localhost", "1"),
        ("MONITOR",),
        ("SELECT", "x"),
    ],
    ids=" ".join,
)
def test_what_is_not_the_queues_is_denied(guarded: Guarded, command: tuple[str, ...]) -> None:
    with redis.Redis.from_url(guarded.url) as client:
        denied = redis.exceptions.ResponseError if command[0] in ("EVAL", "SELECT") else None
        with pytest.raises(denied or redis.exceptions.NoPermissionError):
            client.execute_command(*command)
        assert client.ping()


@pytest.mark.parametrize("user", ["", ":wrong@", "deconvoy:wrong@", "default:@"])
def test_nobody_gets_in_without_the_password_and_no_password_is_told(guarded: Guarded, user: str) -> None:
    broker = Broker(f"unix://{user}{guarded.socket}", 900)
    with pytest.raises(BrokerError) as caught:
        broker.ping()
    broker.close()
    assert "wrong" not in str(caught.value).replace("WRONGPASS", "")


@at_length
def test_a_job_over_tls(
    guarded: Guarded,
    start: Callable[..., Path],
    photos: Path,
    tmp_path: Path,
) -> None:
    certificate, key = write_certificate(tmp_path)
    with tls_before(guarded.socket, certificate, key) as port:
        server = f"rediss://deconvoy:{quote(PASSWORD, safe='')}@{HOST}:{port}/0"
        url = f"{server}?ssl_ca_certs={certificate}"
        log = start("worker", "--gpus", "none", DECONVOY_REDIS_URL=url)
        handle = submit(
            str(photos),
            out=str(tmp_path / "jobs"),
            settings=Settings(redis_url=url),
            weights="random:0",
            specs=("pool1:max",),
            size_px=32,
        )
        assert handle.wait().finished
        assert guarded.denied() == []
        check_no_secret([PASSWORD], [log.read_text()], files_below(tmp_path / "jobs"))
        assert handle.broker is not None
        handle.broker.close()


def test_a_certificate_that_nobody_vouches_for_gets_no_password(guarded: Guarded, tmp_path: Path) -> None:
    """Neither from redis-py nor from kombu, which by itself would take any."""
    certificate, key = write_certificate(tmp_path)
    with tls_before(guarded.socket, certificate, key) as port:
        url = f"rediss://deconvoy:{quote(PASSWORD, safe='')}@{HOST}:{port}/0"
        broker = Broker(url, 900)
        with pytest.raises(BrokerError, match="certificate verify failed"):
            broker.ping()
        broker.close()
        app = create_app(Settings(redis_url=url))
        with app.connection_for_write() as connection, pytest.raises(Exception, match="verify failed"):
            connection.ensure_connection(max_retries=1, interval_start=0)
        trusting = create_app(Settings(redis_url=f"{url}?ssl_cert_reqs=none"))
        with trusting.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0)
