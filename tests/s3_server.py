"""S3 servers for tests: two real ones, and one that answers whatever a test wants. All on free ports."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HOST = "127.0.0.1"

UseS3 = Callable[[str], dict[str, str]]
"""What the fixture `use_s3` gives."""


def environment_for(endpoint_url: str) -> dict[str, str]:
    """The variables that lead to this server and to nothing else of this machine's."""
    return {
        "DECONVOY_S3_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": "a-key",
        "AWS_SECRET_ACCESS_KEY": "a-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": HOST,
    }


@contextmanager
def moto_server() -> Iterator[str]:
    """Moto's S3, in memory. Yields its endpoint URL."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def localbucket_server(folder: Path) -> Iterator[str]:
    """LocalBucket's S3, on a folder. Yields its endpoint URL."""
    from localbucket import S3Handler

    class Handler(S3Handler):  # type: ignore[misc]  # it has no types
        data_root = folder

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with _serving(Handler) as endpoint_url:
        yield endpoint_url


@dataclass(frozen=True)
class Request:
    """What a client asked for; `path` with its query, as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What it gets. With `cut_at`, the connection ends after so many bytes of the body, or first hangs."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    hang: threading.Event | None = None


def error_answer(status: int, code: str, message: str = "") -> Answer:
    """An error as S3 words it."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(status, body.encode(), {"Content-Type": "application/xml"})


@contextmanager
def answering(answer: Callable[[Request], Answer | None], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that answers each request as the function says; None: the connection ends without a word."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            given = answer(Request(self.command, self.path, dict(self.headers), body))
            if given is None:
                self.close_connection = True
                return
            self.send_response(given.status)
            length = {} if "Transfer-Encoding" in given.headers else {"Content-Length": str(len(given.body))}
            for name, value in {**length, **given.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(given.body[: given.cut_at])
                self.wfile.flush()
            if given.hang is not None:
                given.hang.wait()
            self.close_connection = self.close_connection or given.cut_at is not None

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with _serving(Handler, tls) as endpoint_url:
        yield endpoint_url


def forward(request: Request, endpoint_url: str) -> Answer:
    """What another server answers to the same request."""
    connection = http.client.HTTPConnection(urlsplit(endpoint_url).netloc)
    try:
        # Not `Expect`: the body was asked for and read already.
        headers = {name: value for name, value in request.headers.items() if name != "Expect"}
        connection.request(request.method, request.path, request.body, headers)
        answer = connection.getresponse()
        body = answer.read()
        kept = {
            name: value for name, value in answer.getheaders() if name not in ("Connection", "Date", "Server")
        }
        return Answer(answer.status, body, kept)
    finally:
        connection.close()


class _Server(ThreadingHTTPServer):
    """Speaks TLS if it is given a context: each connection in its own thread, so that one cannot stop it."""

    tls: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        try:
            if self.tls is not None:
                request = self.tls.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)
        except (ssl.SSLError, ConnectionError):
            pass  # the client went away, as some tests want it to
        finally:
            request.close()


@contextmanager
def _serving(handler: Any, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    server = _Server((HOST, 0), handler)
    server.tls = tls
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ignoring_conditions(endpoint_url: str) -> AbstractContextManager[str]:
    """The server at `endpoint_url` as one that knows no conditional writes and writes in any case."""

    def ignore(request: Request) -> Answer:
        headers = {name: value for name, value in request.headers.items() if name != "If-None-Match"}
        return forward(Request(request.method, request.path, headers, request.body), endpoint_url)

    return answering(ignore)
