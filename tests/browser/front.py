"""A server in front of the service: every request is done, and answered as a broken network or a busy server would."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.workspace import Service


class Front(ThreadingHTTPServer):
    """Passes requests on.

    Attributes
    ----------
    answers: what the next ones are answered with, a status or 0 for a closed connection; then with what the service
    says. seen: the path and query of every request; done: how many were dealt with.
    """

    daemon_threads = True

    def __init__(self, service: Service, *, tls: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.service, self.port = service, self.server_address[1]
        self.answers: list[int] = []
        self.seen: list[str] = []
        self.done = 0
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(service.verify, Path(service.verify).with_name("key.pem"))
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Front

    def do_POST(self) -> None:
        """Have it done, and answer otherwise if that is wanted."""
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.seen.append(self.path)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _OF_THE_CONNECTION}
        answer = self.server.service.http.request(self.command, self.path, content=body, headers=headers)
        status = self.server.answers.pop(0) if self.server.answers else answer.status_code
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        if status in (429, 503):
            self.send_header("retry-after", "0")
        for name, value in answer.headers.items():
            if name.startswith("access-control") or name in ("content-type", "vary"):
                self.send_header(name, value)
        content = answer.content if status == answer.status_code else b""
        if status != 204:
            self.send_header("content-length", str(len(content)))
        self.end_headers()
        if status != 204:
            self.wfile.write(content)
        self.wfile.flush()
        self.server.done += 1

    do_GET = do_OPTIONS = do_POST  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


_OF_THE_CONNECTION = ("host", "connection", "content-length", "transfer-encoding", "keep-alive")


@contextmanager
def front(service: Service, *, tls: bool = True) -> Iterator[Front]:
    """One that runs; tls: with the service's own certificate."""
    server = Front(service, tls=tls)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
