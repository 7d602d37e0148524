"""A service as it is operated: TLS, several workers, an orderly end."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import threading
from pathlib import Path

import httpx
import pytest

from features.settings import SettingsError
from serving.exposition import METRICS
from serving.settings import ModelSettings, ServingSettings, StoreSettings, load_serving
from serving.stores import open_store
from serving.watcher import Watcher
from tests.certificate import certificate
from tests.workspace import ROOT, Service, lotse, packed, wait_until, workspace

EVENT = {"visitor": "jane", "name": "page_view"}


class Client(threading.Thread):
    """Sends events over one connection until the service asks it to close."""

    def __init__(self, running: Service, number: int) -> None:
        super().__init__()
        self.http, self.number = running.client(), number
        self.acknowledged, self.failed = 0, ""

    def run(self) -> None:
        event = {**EVENT, "visitor": f"visitor-{self.number}"}
        try:
            while True:
                answer = self.http.post("/v1/events", json=event)
                assert answer.status_code == 200, answer.text
                self.acknowledged += 1
                assert answer.json()["events"] == self.acknowledged
                if answer.headers.get("connection") == "close":
                    return
        except Exception as error:
            self.failed = repr(error)
        finally:
            self.http.close()


@pytest.mark.slow
def test_workers_behind_tls_end_in_good_order(trained: Path, tmp_path: Path) -> None:
    """Eight clients are served by two workers when the service is told to stop: nobody's request fails."""
    folder = workspace(tmp_path / "work")
    shown, key = certificate(tmp_path)
    tls = f"tls.certificate={shown}", f"tls.key={key}"
    running = Service(
        folder, *packed(trained), *tls, "server.workers=2", "server.drain_seconds=3", "limits.header_seconds=5"
    )
    running.scheme, running.verify = "https", str(shown)
    running.start()
    try:
        with pytest.raises(httpx.TransportError):
            httpx.post(f"http://127.0.0.1:{running.port}/v1/events", json=EVENT)
        with socket.create_connection(("127.0.0.1", running.port)) as plain, contextlib.suppress(OSError):
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert not plain.recv(100).startswith(b"HTTP")
        with socket.create_connection(("127.0.0.1", running.port), timeout=20) as silent:
            assert silent.recv(1) == b""  # the handshake is not waited for
        wait_until(lambda: "lotse_workers 2.0" in running.http.get("/metrics").text)
        clients = [Client(running, number) for number in range(8)]
        for client in clients:
            client.start()
        wait_until(lambda: all(client.acknowledged > 10 or client.failed for client in clients))
        running.process.send_signal(signal.SIGTERM)
        with running.client() as balancer:
            wait_until(lambda: balancer.get("/readyz").status_code == 503)
            # who comes all the same is served
            assert balancer.post("/v1/events", json=EVENT).headers["connection"] == "close"
        for client in clients:
            client.join(30)
        assert [client.failed for client in clients] == [""] * 8
        running.process.wait(timeout=30)
        left = open_store(StoreSettings(url=f"embedded:{folder}/lotse-data/live"))
        assert left.count() == 9  # every client's session, and the balancer's
        left.close()
    finally:
        running.stop()


def test_half_a_tls_configuration_is_refused(tmp_path: Path) -> None:
    for override, detail in (("certificate=a.pem", "belong together"), ("client_ca=a.pem", "needs tls.certificate")):
        with pytest.raises(SettingsError, match=detail):
            load_serving(ROOT / "configs" / "serving.toml", [f"tls.{override}"])
    files = ["--set", "tls.certificate=a.pem", "--set", "tls.key=b.pem"]
    refused = lotse(workspace(tmp_path / "work"), "serve", *files)
    assert refused.returncode == 2 and "there is no such file" in refused.stderr


def test_every_metric_is_documented(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    told = {name: (about.kind, about.labels) for name, about in METRICS.items()}
    watcher = Watcher(ServingSettings(models=ModelSettings(uri="", cache=str(tmp_path))))
    watcher.comparison.pair("exit", "1", "2")
    for family in (*watcher.collect(), *watcher.comparison.collect()):
        told[family.name] = family.type, tuple(name for name in family.samples[0].labels if name != "le")
    assert "lotse_shadow_psi" in told
    for name, (kind, labels) in told.items():
        shown = f"{name}_total" if kind == "counter" else name
        assert re.search(rf"`{shown}(\{{{', '.join(labels)}\}})?`", page), shown
