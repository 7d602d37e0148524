"""Slow clients and too many of them, with real sockets against uvicorn with our protocol."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop

from serving.accepting import Shares, take_connections
from serving.connections import Connection, Watch
from serving.settings import LimitSettings
from tests.certificate import certificate
from tests.workspace import wait_until

LIMITS = {"header_seconds": 0.4, "body_seconds": 0.4, "read_seconds": 0.4}
HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\n"


async def application(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Reads the body; `/refuse` answers before, `/large` with 50 MB, `/stream` until the client goes."""
    start = {"type": "http.response.start", "status": 200, "headers": []}
    if scope["path"] == "/stream":
        await send(start)
        for _ in range(40):
            await send({"type": "http.response.body", "body": b"tick\n", "more_body": True})
            await asyncio.sleep(0.05)
    elif scope["path"] != "/refuse":
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] == "http.disconnect":
            return
        await send(start)
    else:
        await send(start)
    body = b"x" * 50_000_000 if scope["path"] == "/large" else b"done"
    await send({"type": "http.response.body", "body": body})


@contextmanager
def serving(
    tls: tuple[Path, Path] | None = None, shared: tuple[socket.socket, Path] | None = None, **limits: Any
) -> Iterator[tuple[int, Watch]]:
    """The port and the watch of a server on the event loop of the service; tls: files of a certificate and its key;
    shared: what it listens to, others too, and where they tell each other of their connections.
    """
    watch = Watch(LimitSettings(**{**LIMITS, **limits}), workers=1)
    if shared:
        shared[1].mkdir(exist_ok=True)
        watch.shares = Shares(shared[1], uuid.uuid4().hex, lambda name: True)
    protocol = type("Own", (Connection,), {"watch": watch, "front": staticmethod(lambda theirs: theirs), "ours": None})
    config = uvicorn.Config(
        application, http=protocol, lifespan="off", log_config=None, timeout_keep_alive=30,
        **({"ssl_certfile": tls[0], "ssl_keyfile": tls[1]} if tls else {}),
    )  # fmt: skip
    server = uvicorn.Server(config)
    listening = shared[0].dup() if shared else socket.create_server(("127.0.0.1", 0))

    async def run() -> None:
        take_connections(asyncio.get_running_loop(), LIMITS["header_seconds"], watch.shares)
        looking = asyncio.create_task(watch.run(every_seconds=0.05))
        await server.serve(sockets=[listening])
        looking.cancel()

    thread = threading.Thread(target=uvloop.run, args=(run(),))
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield listening.getsockname()[1], watch
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(20)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def until_closed(client: socket.socket) -> bytes:
    received = b""
    while part := client.recv(65_536):
        received += part
    return received


def answered(client: socket.socket) -> bool:
    """Whether the request is answered with 200; reads all of the answer."""
    received = b""
    while not received.endswith(b"0\r\n\r\n"):
        part = client.recv(65_536)
        if not part:
            return False
        received += part
    return received.startswith(b"HTTP/1.1 200")


def test_a_wish_for_another_protocol_is_declined_and_the_body_is_read() -> None:
    """As Java's HttpClient sends it: a wish for HTTP/2, and the body after the headers."""
    wish = b"connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\nUpgrade: h2c\r\n\r\n"
    with serving() as (port, _), connect(port) as client:
        for _ in range(3):
            client.sendall(HEAD.removesuffix(b"\r\n") + wish)
            time.sleep(0.05)
            client.sendall(b"x" * 20)
            assert answered(client)


def trickle(client: socket.socket, text: bytes) -> bytes:
    """Send a byte every 50 ms until the service has enough; returns what it answered."""
    client.settimeout(0.05)
    received = b""
    for number in range(400):
        try:
            client.sendall(text[number % len(text) :][:1])
            part = client.recv(65_536)
        except TimeoutError:
            continue
        except OSError:
            return received
        if not part:
            return received
        received += part
    raise AssertionError("nobody stopped it")


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"POST / HTTP/1.1\r\nhost: x\r\n", b"x-slow: loris\r\n"),
        (HEAD.replace(b"20", b"2000"), b"slow"),
        (HEAD.replace(b"content-length: 20", b"transfer-encoding: chunked"), b"1\r\nx\r\n"),
    ],
    ids=["headers", "body", "chunks"],
)
def test_what_trickles_is_cut(sent: bytes, text: bytes) -> None:
    with serving() as (port, watch), connect(port) as client:
        client.sendall(sent)
        answer = trickle(client, text)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"application/problem+json" in answer
        assert watch.cut == 1
        wait_until(lambda: not watch.connections)


def test_headers_that_trickle_after_a_good_request_are_cut() -> None:
    with serving() as (port, watch), connect(port) as client:
        client.sendall(HEAD + b"x" * 20)
        assert answered(client)
        client.sendall(b"GET / HTTP/1.1\r\n")
        assert b" 408 " in trickle(client, b"a: b\r\n")
        assert watch.cut == 1


def test_who_says_nothing_is_cut_and_who_waits_between_requests_is_not() -> None:
    with serving() as (port, watch), connect(port) as silent, connect(port) as idle:
        idle.sendall(HEAD + b"x" * 20)
        assert answered(idle)
        assert until_closed(silent) == b""
        assert watch.cut == 1
        idle.sendall(HEAD + b"x" * 20)
        assert answered(idle)


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "a part of a hello"])
def test_a_handshake_that_is_not_finished_is_cut(tmp_path: Path, begun: bytes, shared: bool) -> None:
    shown, key = certificate(tmp_path)
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        serving((shown, key), (listening, tmp_path / "shares") if shared else None) as (port, _),
        connect(port) as silent,
    ):
        silent.sendall(begun)
        context = ssl.create_default_context(cafile=shown)
        with context.wrap_socket(connect(port), server_hostname="127.0.0.1") as client:
            client.sendall(HEAD + b"x" * 20)
            assert answered(client)
        assert until_closed(silent) == b""


def test_a_body_that_goes_on_after_the_refusal_is_cut() -> None:
    with serving() as (port, watch), connect(port) as client:
        client.sendall(HEAD.replace(b"POST /", b"POST /refuse").replace(b"20", b"2000"))
        assert answered(client)
        assert b"408" not in trickle(client, b"slow")
        assert watch.cut == 1


def test_who_does_not_read_is_cut() -> None:
    with serving() as (port, watch), connect(port) as client:
        client.sendall(HEAD.replace(b"POST /", b"POST /large") + b"x" * 20)
        wait_until(lambda: watch.cut == 1)
        wait_until(lambda: not watch.connections)


def test_a_stream_lasts_longer_than_every_limit() -> None:
    with serving() as (port, watch), connect(port) as client:
        begin = time.monotonic()
        client.sendall(b"GET /stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert until_closed(client).count(b"tick") == 40
        assert watch.cut == 0 and time.monotonic() - begin > 1


def test_too_many_connections_are_told_so() -> None:
    with serving(connections=3, header_seconds=60) as (port, watch):
        held = [connect(port) for _ in range(3)]
        wait_until(lambda: len(watch.connections) == 3)
        with connect(port) as fourth:
            answer = until_closed(fourth)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in answer
        assert watch.refused == 1
        for client in held:
            client.close()
        wait_until(lambda: not watch.connections)
        with connect(port) as client:
            client.sendall(HEAD + b"x" * 20)
            assert answered(client)


def test_clients_that_come_at_once_are_shared_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        shared = listening, tmp_path
        clients = [connect(listening.getsockname()[1]) for _ in range(60)]
        with serving(shared=shared, header_seconds=60) as (port, one):
            wait_until(lambda: len(one.connections) == 60)  # nobody else is there
            with serving(shared=shared, header_seconds=60) as (_, other):
                assert one.shares
                one.shares.look()
                clients += [connect(port) for _ in range(40)]
                wait_until(lambda: len(one.connections) + len(other.connections) == 100)
                # of those that came to one while the other was waking up there are few
                assert len(other.connections) > 30
                for client in clients:
                    client.sendall(HEAD + b"x" * 20)
                    assert answered(client)
                    client.close()


def test_a_worker_that_takes_no_connections_is_not_waited_for(tmp_path: Path) -> None:
    Shares(tmp_path, "stuck", lambda name: True)
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        serving(shared=(listening, tmp_path), header_seconds=60) as (port, watch),
    ):
        clients = [connect(port) for _ in range(10)]
        wait_until(lambda: len(watch.connections) == 10)
        for client in clients:
            client.close()
    shares = Shares(tmp_path, "next", lambda name: name == "stuck")
    shares.tell(7)
    assert shares.ahead() == 7 and len(list(tmp_path.iterdir())) == 2


def test_a_socket_is_left_to_the_others(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, serving(shared=(listening, tmp_path)) as (port, _):
        with serving(shared=(listening, tmp_path)):
            pass
        for _ in range(5):
            with connect(port) as client:
                client.sendall(HEAD + b"x" * 20)
                assert answered(client)
