"""An HTTP proxy of the tests' own that stands in front of an S3 server and spoils what it is told to.

It speaks plain HTTP with bodies of a known length, as S3 clients do, and passes the headers on as they
are: a signed request stays signed.
"""

from __future__ import annotations

import http.client
import random
import re
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import KW_ONLY, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import unquote, urlsplit

Fault = Literal[
    "500", "503", "403", "404", "reset", "hang", "cut_request", "cut_answer", "lost_answer", "slow"
]
"""`cut_request`: the connection ends half-way through the request's body, and the server gets nothing.
`cut_answer`: it ends half-way through the answer's body. `lost_answer`: the server has done what was
asked, and nothing comes back. `slow`: the answer's body comes in ten pieces."""

_REFUSALS = {
    "500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "503": (503, "SlowDown", "Please reduce your request rate."),
    "404": (404, "NoSuchBucket", "The specified bucket does not exist."),
    "403": (403, "InvalidAccessKeyId", "The key you provided does not exist in our records."),
}
_PIECES = 10
_UPSTREAM_TIMEOUT_S = 60
_OF_THIS_HOP = frozenset({"connection", "expect", "keep-alive", "transfer-encoding", "content-length"})


class Answer(NamedTuple):
    """What the server answered. `length` is the body's as announced, also where there is none (HEAD)."""

    status: int
    headers: list[tuple[str, str]]
    length: int
    body: bytes


@dataclass
class Rule:
    """Strikes requests whose method matches `method`, and in whose `bucket/key` `key` is found (expressions).

    Each of them is struck the first `times` times that it comes (None: always), or by chance a `share` of
    those times. `seconds`: how long a `hang` lasts at most, or how long `slow` takes. `n_struck` counts.
    """

    fault: Fault
    _: KW_ONLY
    method: str = ".*"
    key: str = ""
    times: int | None = None
    share: float = 1.0
    seed: int = 0
    seconds: float = 3600.0
    n_struck: int = 0
    _seen: Counter[tuple[str, str]] = field(default_factory=Counter)

    def strikes(self, method: str, key: str) -> bool:
        """Whether this request is to be struck; it counts as one more of its kind."""
        if not (re.fullmatch(self.method, method) and re.search(self.key, key)):
            return False
        attempt = self._seen[method, key]
        self._seen[method, key] += 1
        if self.times is not None and attempt >= self.times:
            return False
        # By request, not by turn: which thread comes first must not decide who is struck.
        if random.Random(f"{self.seed} {method} {key} {attempt}").random() >= self.share:  # noqa: S311 (chance, no secret)
            return False
        self.n_struck += 1
        return True


class FaultProxy:
    """As a context it serves at `url`; at the end no thread and no connection of it is left.

    Without rules it passes everything on. `requests` counts what came, by method and `bucket/key`.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.requests: Counter[tuple[str, str]] = Counter()
        self.faults: Counter[Fault] = Counter()
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._speaking = threading.Event()
        # Holds the port while the proxy is down; it never listens.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port: int = self._reserved.getsockname()[1]
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        """What clients are to use as their endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._reserved.close()

    def inject(self, rule: Rule) -> Rule:
        """Strike what comes by this rule too; the first rule that strikes a request decides."""
        with self._lock:
            self._rules.append(rule)
        return rule

    def heal(self) -> None:
        """Forget all rules, and let go what hangs."""
        with self._lock:
            self._rules.clear()
        self._released.set()
        self._released = threading.Event()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Accept requests and answer none; those that are still wanted afterwards are answered then."""
        self._speaking.clear()
        try:
            yield
        finally:
            self._speaking.set()

    @contextmanager
    def down(self) -> Iterator[None]:
        """Cut all connections and refuse new ones."""
        self._stop()
        try:
            yield
        finally:
            self._start()

    def strike(self, method: str, key: str) -> Rule | None:
        """Count a request; the rule that strikes it, if any does."""
        with self._lock:
            self.requests[method, key] += 1
            rule = next((rule for rule in self._rules if rule.strikes(method, key)), None)
            if rule is not None:
                self.faults[rule.fault] += 1
            return rule

    def wait(self, hang_s: float) -> None:
        """Wait while the proxy is silent, and so long that a request hangs, but no longer than the test."""
        self._speaking.wait()
        self._released.wait(hang_s)

    def _start(self) -> None:
        self._released = threading.Event()
        self._speaking.set()
        self._server = _Server(self)

    def _stop(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.cut()
        # Only now: those that waited find that their client is gone.
        self._released.set()
        self._speaking.set()
        server.server_close()


class _Server(ThreadingHTTPServer):
    """Listens on the proxy's port, from its making to `stop`."""

    daemon_threads = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", proxy.port), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def cut(self) -> None:
        """Accept no more connections, and cut those that there are."""
        self.shutdown()
        self._thread.join()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own. Called by the thread that accepts."""
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def handle(self) -> None:
        # A client that gives up is what most faults are for.
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _pass(self) -> None:
        proxy = self.server.proxy
        rule = proxy.strike(self.command, unquote(urlsplit(self.path).path).lstrip("/"))
        fault = None if rule is None else rule.fault
        length = int(self.headers.get("Content-Length", 0))
        if fault == "cut_request":
            self.rfile.read(length // 2)
            self._reset()
            return
        body = self.rfile.read(length)
        proxy.wait(rule.seconds if rule and fault == "hang" else 0)
        if self._client_is_gone():
            self.close_connection = True
        elif fault == "reset":
            self._reset()
        elif fault in _REFUSALS:
            self._send(_refusal(fault))
        else:
            answer = self._ask(body)
            if fault == "lost_answer":
                self._reset()
            elif fault == "cut_answer":
                self._send(answer, answer.body[: len(answer.body) // 2])
                self.close_connection = True
            else:
                self._send(answer, pause_s=rule.seconds / _PIECES if rule and fault == "slow" else 0)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass

    def _client_is_gone(self) -> bool:
        """Whether nobody waits any more: what was asked is not done then."""
        if not select.select([self.connection], [], [], 0)[0]:
            return False
        return not self.connection.recv(1, socket.MSG_PEEK)

    def _ask(self, body: bytes) -> Answer:
        with closing(
            http.client.HTTPConnection(self.server.proxy.upstream, timeout=_UPSTREAM_TIMEOUT_S)
        ) as upstream:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in _end_to_end(self.headers.items()):
                upstream.putheader(name, value)
            upstream.putheader("Content-Length", str(len(body)))
            upstream.putheader("Connection", "close")
            upstream.endheaders(body)
            response = upstream.getresponse()
            data = response.read()
            announced = int(response.headers.get("Content-Length", len(data)))
            return Answer(response.status, _end_to_end(response.headers.items()), announced, data)

    def _send(self, answer: Answer, body: bytes | None = None, pause_s: float = 0) -> None:
        """Send the answer; `body` is what comes of its body, which is announced whole in any case."""
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(answer.length))
        self.end_headers()
        if self.command == "HEAD":
            return
        body = answer.body if body is None else body
        n_piece = max(1, -(-len(body) // _PIECES)) if pause_s else max(1, len(body))
        for start in range(0, len(body), n_piece):
            time.sleep(pause_s)
            self.wfile.write(body[start : start + n_piece])

    def _reset(self) -> None:
        """End the connection so that the other side sees it broken, not closed."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()


def _refusal(fault: str) -> Answer:
    status, code, message = _REFUSALS[fault]
    error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    body = f"<?xml version='1.0' encoding='UTF-8'?>{error}".encode()
    return Answer(status, [("Content-Type", "application/xml")], len(body), body)


def _end_to_end(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() not in _OF_THIS_HOP]
