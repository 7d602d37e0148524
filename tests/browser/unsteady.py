"""A server before the service that passes requests on, and loses or replaces the answers that it is told to."""

from __future__ import annotations

import socket
import ssl
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Literal

import httpx

from tests.workspace import Service

# What becomes of the answer to a request that the service took: it is lost, or it is this status.
Fate = Literal["lost"] | int
_OF_CONNECTION = {"accept-encoding", "connection", "content-length", "date", "server", "transfer-encoding"}


class Unsteady:
    """Listens on `port`, with the service's own certificate unless it speaks plain HTTP.

    Attributes
    ----------
    fates: of the next requests whose path ends so; once there are none, they are passed on and answered.
    asked: path and query of every request; seen: how many came, by their path.
    """

    def __init__(self, service: Service, path: str, *, tls: bool = True) -> None:
        self.fates: deque[Fate] = deque()
        self.asked: list[str] = []
        self.seen: Counter[str] = Counter()
        self._http = httpx.Client(base_url=f"https://127.0.0.1:{service.port}", verify=False, timeout=20)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                outer._handle(self, path)

            do_GET = do_POST = do_OPTIONS = _any  # noqa: N815

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls:
            context, folder = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), service.folder
            context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
            plain = self._server.socket
            self._server.socket = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        self.port: int = self._server.server_address[1]
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()
        self._http.close()

    def _handle(self, asked: BaseHTTPRequestHandler, path: str) -> None:
        body = asked.rfile.read(int(asked.headers.get("content-length", 0)))
        plain = asked.path.partition("?")[0]
        self.asked.append(asked.path)
        self.seen[plain] += 1
        fate: Fate | None = None
        if asked.command != "OPTIONS" and plain.endswith(path) and self.fates:
            fate = self.fates.popleft()
        headers = [(name, value) for name, value in asked.headers.items() if name.lower() not in _OF_CONNECTION]
        answer = self._http.request(asked.command, asked.path, content=body, headers=headers)
        if fate == "lost":
            asked.close_connection = True
            asked.connection.shutdown(socket.SHUT_RDWR)
            return
        content = answer.content if fate is None else b""
        asked.send_response(answer.status_code if fate is None else fate)
        for name, value in answer.headers.multi_items():
            if name not in _OF_CONNECTION:
                asked.send_header(name, value)
        if isinstance(fate, int):
            asked.send_header("retry-after", "1")
        if (answer.status_code if fate is None else fate) != 204:
            asked.send_header("content-length", str(len(content)))
        asked.end_headers()
        asked.wfile.write(content)


@contextmanager
def unsteady(service: Service, path: str, *fates: Fate, tls: bool = True) -> Iterator[Unsteady]:
    """A server before the service that spoils the answers of a path, one after the other; the service has taken all."""
    server = Unsteady(service, path, tls=tls)
    server.fates.extend(fates)
    try:
        yield server
    finally:
        server.close()
