"""An HTTPS server before the collector that loses or spoils answers: what was sent has arrived all the same."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.certificate import certificate
from tests.server_process import HOST
from tests.workspace import Service

# What happens to the answer of a POST: it gets another status, or the connection is closed instead.
DROP = 0


class Flaky:
    """Passes requests on.

    spoil: for each POST to come a status or DROP; later ones get their answer. spoiled: how many have not.
    """

    def __init__(self, service: Service) -> None:
        self.spoil: list[int] = []
        self.spoiled = 0
        client = self._client = service.client()
        flaky = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
                answer = client.request(self.command, self.path, content=body, headers=headers)
                spoil = flaky.spoil.pop(0) if self.command == "POST" and flaky.spoil else None
                if spoil is not None:
                    flaky.spoiled += 1
                if spoil == DROP:
                    self.close_connection = True
                    return
                self.send_response(spoil or answer.status_code)
                for name, value in answer.headers.items():
                    if name not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                        self.send_header(name, value)
                if spoil == 429:
                    self.send_header("retry-after", "1")
                self.send_header("content-length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            def do_GET(self) -> None:
                self.do_POST()

            def do_OPTIONS(self) -> None:
                self.do_POST()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.certificate, key = certificate(service.folder / "flaky")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._client.close()


@contextmanager
def flaky_before(service: Service) -> Iterator[Flaky]:
    """One before a service."""
    (service.folder / "flaky").mkdir(exist_ok=True)
    flaky = Flaky(service)
    try:
        yield flaky
    finally:
        flaky.close()
