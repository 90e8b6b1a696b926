"""The fault proxy strikes what it is told to and nothing else, and leaves nothing behind."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.fault_proxy import Fault, FaultProxy, Rule

BODY = bytes(range(256)) * 40
TIMEOUT_S = 30.0


class Server(ThreadingHTTPServer):
    """Answers each GET with BODY, and keeps what it was sent."""

    daemon_threads = False

    def __init__(self) -> None:
        self.received: dict[str, bytes] = {}
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.send_header("X-Host", self.headers["Host"])
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(BODY)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        self.server.received[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    before = threading.active_count()
    with FaultProxy(f"http://127.0.0.1:{server.server_port}") as running:
        yield running
    names = [thread.name for thread in threading.enumerate() if "process_request" in thread.name]
    # Only the server's own threads may be left for a moment: the proxy has joined its.
    assert threading.active_count() <= before + len(names)


def ask(
    proxy: FaultProxy, method: str = "GET", path: str = "/bucket/a.jpg", body: bytes | None = None
) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=TIMEOUT_S)) as connection:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()


def test_without_rules_everything_passes_as_it_is(proxy: FaultProxy, server: Server) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=TIMEOUT_S)) as connection:
        for _ in range(3):  # on one connection
            connection.request("GET", "/bucket/a%20b.jpg?x=1", headers={"Host": "signed.example"})
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, BODY)
            assert response.headers["X-Host"] == "signed.example"
            connection.request("PUT", "/bucket/c", BODY, {"Expect": "100-continue"})
            assert connection.getresponse().read() == b""
        connection.request("HEAD", "/bucket/a%20b.jpg")
        head = connection.getresponse()
        assert (head.headers["Content-Length"], head.read()) == (str(len(BODY)), b"")
    assert server.received == {"/bucket/c": BODY}
    assert proxy.requests == {
        ("GET", "bucket/a b.jpg"): 3,
        ("PUT", "bucket/c"): 3,
        ("HEAD", "bucket/a b.jpg"): 1,
    }
    assert not proxy.faults


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("500", 500, b"InternalError"),
        ("503", 503, b"SlowDown"),
        ("403", 403, b"InvalidAccessKeyId"),
        ("404", 404, b"NoSuchBucket"),
    ],
)
def test_refusals_are_answered_as_s3_does(
    proxy: FaultProxy, server: Server, fault: Fault, status: int, code: bytes
) -> None:
    rule = proxy.inject(Rule(fault, method="PUT", times=1))
    first, text = ask(proxy, "PUT", "/bucket/a", b"data")
    assert first == status
    assert b"<Code>" + code + b"</Code>" in text
    assert server.received == {}
    assert ask(proxy, "PUT", "/bucket/a", b"data") == (200, b"")
    assert server.received == {"/bucket/a": b"data"}
    assert (rule.n_struck, proxy.faults) == (1, {fault: 1})


def test_a_rule_strikes_its_method_and_keys_alone_each_as_often_as_said(
    proxy: FaultProxy,
) -> None:
    proxy.inject(Rule("500", method="GET", key=r"^bucket/in/.*\.jpg$", times=2))
    statuses = {
        path: [ask(proxy, "GET", path)[0] for _ in range(3)]
        for path in ("/bucket/in/a.jpg", "/bucket/in/b.jpg", "/bucket/in/a.png")
    }
    assert statuses == {
        "/bucket/in/a.jpg": [500, 500, 200],
        "/bucket/in/b.jpg": [500, 500, 200],
        "/bucket/in/a.png": [200, 200, 200],
    }
    assert ask(proxy, "PUT", "/bucket/in/a.jpg", b"")[0] == 200
    assert proxy.faults["500"] == 4


def test_a_share_is_struck_by_seed_and_request_and_not_by_turn(proxy: FaultProxy) -> None:
    paths = [f"/bucket/{number}" for number in range(100)]

    def struck(seed: int, order: list[str]) -> set[str]:
        proxy.heal()
        proxy.inject(Rule("500", share=0.3, seed=seed))
        return {path for path in order if ask(proxy, "GET", path)[0] == 500}

    first = struck(1, paths)
    assert 15 <= len(first) <= 45
    assert struck(1, paths[::-1]) == first
    assert struck(2, paths) != first


@pytest.mark.parametrize("fault", ["reset", "cut_request"])
def test_a_connection_is_broken_and_the_server_gets_nothing(
    proxy: FaultProxy, server: Server, fault: Fault
) -> None:
    proxy.inject(Rule(fault))
    with pytest.raises(ConnectionError):
        ask(proxy, "PUT", "/bucket/a", bytes(5_000_000))
    assert server.received == {}


def test_an_answer_may_be_lost_when_the_work_is_done(proxy: FaultProxy, server: Server) -> None:
    proxy.inject(Rule("lost_answer"))
    with pytest.raises(ConnectionError):
        ask(proxy, "PUT", "/bucket/a", b"data")
    assert server.received == {"/bucket/a": b"data"}


def test_an_answer_is_cut_half_way(proxy: FaultProxy) -> None:
    proxy.inject(Rule("cut_answer"))
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(proxy)
    assert caught.value.partial == BODY[: len(BODY) // 2]
    assert caught.value.expected == len(BODY) - len(BODY) // 2


def test_a_slow_answer_is_whole_and_takes_its_time(proxy: FaultProxy) -> None:
    proxy.inject(Rule("slow", seconds=0.5))
    started = time.monotonic()
    assert ask(proxy) == (200, BODY)
    assert time.monotonic() - started >= 0.5


def in_background(proxy: FaultProxy) -> tuple[threading.Thread, list[object]]:
    """A request that is under way, and the list in which its answer will be."""
    answers: list[object] = []

    def work() -> None:
        try:
            answers.append(ask(proxy))
        except (http.client.HTTPException, OSError) as error:
            answers.append(type(error))

    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + TIMEOUT_S
    while not proxy.requests:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return thread, answers


def test_what_hangs_is_answered_when_the_test_lets_go(proxy: FaultProxy) -> None:
    proxy.inject(Rule("hang"))
    thread, answers = in_background(proxy)
    assert answers == []
    proxy.heal()
    thread.join(TIMEOUT_S)
    assert answers == [(200, BODY)]


def test_what_hangs_is_answered_after_its_time(proxy: FaultProxy) -> None:
    proxy.inject(Rule("hang", seconds=0.3))
    started = time.monotonic()
    assert ask(proxy) == (200, BODY)
    assert time.monotonic() - started >= 0.3


def test_a_silent_proxy_accepts_and_answers_late(proxy: FaultProxy) -> None:
    with proxy.silent():
        thread, answers = in_background(proxy)
        assert answers == []
    thread.join(TIMEOUT_S)
    assert answers == [(200, BODY)]


def test_a_proxy_that_is_down_cuts_refuses_and_comes_back_at_its_port(proxy: FaultProxy) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=TIMEOUT_S)) as connection:
        connection.request("GET", "/bucket/a")
        assert connection.getresponse().read() == BODY
        with proxy.down():
            with pytest.raises(ConnectionRefusedError):
                ask(proxy)
            assert connection.sock.recv(1) == b""
    assert ask(proxy) == (200, BODY)


def test_what_nobody_waits_for_any_more_is_not_done_later(server: Server) -> None:
    with FaultProxy(f"http://127.0.0.1:{server.server_port}") as proxy:
        proxy.inject(Rule("hang"))
        with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=0.2)) as connection:
            connection.request("PUT", "/bucket/a", b"data")
            with pytest.raises(TimeoutError):
                connection.getresponse()
        proxy.heal()
    assert proxy.requests == {("PUT", "bucket/a"): 1}
    assert server.received == {}


def test_the_end_lets_nothing_hang(server: Server) -> None:
    with FaultProxy(f"http://127.0.0.1:{server.server_port}") as proxy:
        proxy.inject(Rule("hang"))
        thread, answers = in_background(proxy)
    thread.join(TIMEOUT_S)
    assert answers == [http.client.RemoteDisconnected]
    assert not server.received
