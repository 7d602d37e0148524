"""A thousand swaps of all heads under load: failed requests, answers that are not what their version gives, memory.

    python -m benchmarks.swaps [--swaps 1000] [--clients 2] [--workers 1] [--models FOLDER]

Trains models from a simulated shop (or takes a folder in which `lotse train` has run), registers two more versions of
each head, and moves all `champion` aliases from one to the next, while clients send sessions whose features are known,
so every score is compared with what training says the named version makes of them. MLflow's signed webhook is sent
after each move. Two versions stay in memory, three take turns: every swap loads from disk.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final

import httpx
import numpy as np

from benchmarks.measure import console, report
from features.compiler import compile_fold
from features.shop import load_shop
from serving.intake import Intake
from serving.refresh import SECRET
from tests.serving.versions import HEADS, Versions
from tests.workspace import LOTSE, ROOT, Service, environment

NAMES: Final = ("page_view", "view_item", "add_to_cart", "view_item", "page_view")
_GAP_MS: Final = 3_000


def wire(visitor: str, number: int, begin: int) -> bytes:
    """Event `number` of a session; the same for all visitors."""
    event = {"visitor": visitor, "name": NAMES[number], "item": f"sku-{number}", "time": begin + _GAP_MS * number}
    return json.dumps(event).encode()


def expected(versions: Versions, begin: int) -> dict[tuple[str, str], np.ndarray]:
    """What training says each version makes of the session, event by event."""
    fold, intake = compile_fold(), Intake(load_shop(ROOT / "configs" / "shop.toml"), ("measure",), 86_400_000)
    found = {}
    for key, one in versions.loaded.items():
        record, rows = fold.new_record(), []
        tables = one.tables.pack(tuple(fold.catalogue.tables))
        for number in range(len(NAMES)):
            event = intake.event(wire("x", number, begin), time.time_ns() // 1_000_000, lambda raw, linked: 1)
            row = fold.new_row()
            fold.advance(record, row, 1_800_000, tables, *event)
            rows.append(row)
        found[key] = one.model.score(np.array(rows))
    return found


class Client(threading.Thread):
    """Sends session after session and checks every answer."""

    def __init__(self, port: int, name: str, begin: int, scores: dict[tuple[str, str], np.ndarray]) -> None:
        super().__init__(daemon=True)
        self._port, self._who, self._begin, self._scores = port, name, begin, scores
        self.outcomes: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.latest = ""
        self.over = False

    def run(self) -> None:
        """Until it is over."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        session = 0
        while not self.over:
            session += 1
            for number in range(len(NAMES)):
                body = wire(f"{self._who}-{session}", number, self._begin)
                begin = time.perf_counter()
                try:
                    connection.request("POST", "/v1/events", body)
                    answer = connection.getresponse()
                    content = answer.read()
                except (OSError, http.client.HTTPException):
                    self.outcomes["failed"] += 1
                    connection.close()
                    break
                self.seconds.append(time.perf_counter() - begin)
                self.outcomes[self._judged(answer.status, content, number)] += 1

    def _judged(self, status: int, content: bytes, number: int) -> str:
        if status != httpx.codes.OK:
            return "failed"
        answer = json.loads(content)
        self.latest = answer["models"].get("exit", "")
        if set(answer["scores"]) != set(HEADS) or "reasons" in answer:
            return "without a model"
        for head in HEADS:
            right = self._scores[head, answer["models"][head]][number]
            if head not in answer.get("decided", ()) and abs(answer["scores"][head] - right) > 1e-12:
                return "wrong"
        return "right"


def tell(port: int) -> None:
    """MLflow's webhook, as MLflow signs it."""
    body, at = b'{"entity": "model_version_alias", "action": "created"}', str(int(time.time())).encode()
    digest = hmac.new(os.environ[SECRET].encode(), b"id." + at + b"." + body, hashlib.sha256).digest()
    headers = {
        "X-MLflow-Delivery-Id": "id",
        "X-MLflow-Timestamp": at.decode(),
        "X-MLflow-Signature": f"v1,{base64.b64encode(digest).decode()}",
    }
    httpx.post(f"http://127.0.0.1:{port}/v1/models/refresh", content=body, headers=headers).raise_for_status()


def memory(running: Service) -> tuple[float, float]:
    """Anonymous memory of the workers and of the follower, MB; the store's pages, which grow with it, are not in it."""
    found = {"worker": 0.0, "follow": 0.0}
    for pid in running.processes():
        command = Path(f"/proc/{pid}/cmdline").read_text()
        kind = "follow" if "serving.follow" in command else "worker" if "worker" in command else ""
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        if kind:
            found[kind] += int(lines["RssAnon"].split()[0]) / 1000
    return found["worker"], found["follow"]


def p99(clients: list[Client]) -> float:
    """Of all answers since the last time it was asked, in ms."""
    taken = []
    for client in clients:
        client.seconds, seconds = [], client.seconds
        taken += seconds
    return float(np.percentile(taken, 99)) * 1000


def swap(versions: Versions, running: Service, clients: list[Client], swaps: int) -> list[list[str]]:
    """Swap and wait until every client sees it, again and again; returns a line of figures for each tenth."""
    lines: list[list[str]] = []

    def note(done: int, since: float) -> None:
        worker, follower = memory(running)
        took = (time.perf_counter() - since) / max(1, swaps // 10)
        lines.append([str(done), f"{worker:.0f}", f"{follower:.0f}", f"{p99(clients):.1f}", f"{took:.2f}"])
        console.print(f"  {', '.join(lines[-1])}", style="dim")

    since = time.perf_counter()
    time.sleep(10)
    note(0, time.perf_counter())
    for done in range(1, swaps + 1):
        number = "123"[done % 3]
        for head in HEADS:
            versions.point(head, number)
        tell(running.port)
        while any(client.latest != number for client in clients):
            if not all(client.is_alive() for client in clients):
                raise SystemExit("a client ended early")
            time.sleep(0.005)
        if done % max(1, swaps // 10) == 0:
            note(done, since)
            since = time.perf_counter()
    return lines


def main() -> None:
    """Train, start, swap, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--models", type=Path)
    options = parser.parse_args()
    os.environ.setdefault(SECRET, "a secret of this benchmark")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "configs", folder / "configs")
        if options.models is None:
            for verb in (["simulate", "--events", "150000"], ["train", "--events", "lotse-data/simulated.parquet"]):
                subprocess.run([*LOTSE, *verb], cwd=folder, check=True, capture_output=True, env=environment())
        versions = Versions(options.models or folder, folder / "registry")
        for trees in (4, 40):
            for head in HEADS:
                versions.add(head, trees)
        begin = time.time_ns() // 1_000_000 - 60_000
        scores = expected(versions, begin)
        running = Service(
            folder, f"models.uri={versions.uri}", f"server.workers={options.workers}", "models.poll_seconds=3600"
        ).start()
        clients = [Client(running.port, str(who), begin, scores) for who in range(options.clients)]
        try:
            for client in clients:
                client.start()
            lines = swap(versions, running, clients, options.swaps)
        finally:
            for client in clients:
                client.over = True
            for client in clients:
                client.join(30)
            running.stop()
    total: Counter[str] = sum((client.outcomes for client in clients), Counter())
    report(
        f"{options.swaps} swaps of three heads, {options.workers} workers, {options.clients} clients",
        ["swaps", "workers MB", "follower MB", "p99 ms", "s a swap"],
        lines,
    )
    console.print(
        f"{total.total():,} requests: {total['failed']} failed, {total['wrong']} wrong, "
        f"{total['without a model']} without a model, {total['right']:,} right"
    )


if __name__ == "__main__":
    main()
