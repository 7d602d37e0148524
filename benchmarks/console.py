"""What consoles cost: events beside 10,000 sessions that run, with nobody looking and with two consoles open.

    python -m benchmarks.console [--sessions 10000] [--consoles 2] [--seconds 15] [--runs 3] [--share 0.5] [--no-page]

Needs `wrk` and `wrk2`. Both states take turns in the same service: the highest load in a closed loop (wrk, 16
connections), then latencies in an open loop at a share of it (wrk2, 64 connections). The load is made on the same
machine. Last a page in headless Chromium, while events come at a tenth of the highest load: times between its frames,
and its long tasks (over 50 ms).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any, Final

import httpx

from benchmarks.load import CONNECTIONS, LEAST_SECONDS, SCRIPT, Latencies, attack, middle_of
from benchmarks.measure import console, median, report
from benchmarks.services import ask, lotse, needs, trained_folder

_NAMES: Final = ("page_view", "view_item_list", "view_item", "view_item", "add_to_cart")
# The process has its models loaded, and its first look behind it.
_SETTLED_LOOKS: Final = 3
_ALONE_SECONDS: Final = 10.0
_FRAMES: Final = """seconds => new Promise((resolve) => {
  const frames = [], tasks = [];
  new PerformanceObserver((list) => { for (const one of list.getEntries()) tasks.push(one.duration); })
    .observe({ type: "longtask" });
  const end = performance.now() + seconds * 1000;
  let before = performance.now();
  const frame = (now) => {
    frames.push(now - before);
    before = now;
    if (now < end) requestAnimationFrame(frame);
    else resolve({ frames: frames.slice(1), tasks });
  };
  requestAnimationFrame(frame);
})"""


class Console:
    """One that listens; looks: what it was told of all sessions."""

    def __init__(self, port: int, name: str) -> None:
        self.looks: list[dict[str, Any]] = []
        self.received = 0
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._connection.request("GET", f"/v1/insight/live?list={name}")
        self._answer = self._connection.getresponse()
        assert self._answer.status == httpx.codes.OK, self._answer.read()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        kind = b""
        try:
            while line := self._answer.fp.readline():  # chunks are a few bytes more
                self.received += len(line)
                if line.startswith(b"event: "):
                    kind = line[7:].strip()
                elif line.startswith(b"data: ") and kind == b"totals":
                    self.looks.append(json.loads(line[6:]))
        except (OSError, AttributeError, ValueError):  # it was closed
            pass

    def close(self) -> None:
        """Go away."""
        sock = self._connection.sock
        if sock is not None:
            sock.shutdown(2)
        self._connection.close()
        self._thread.join(5)


@contextmanager
def consoles(port: int, count: int) -> Iterator[list[Console]]:
    """So many, each looking at another list, once they are told what runs."""
    names = ["recent", "conversion", "exit", "idle", "bounce"]
    opened = [Console(port, names[number % len(names)]) for number in range(count)]
    try:
        while any(len(one.looks) < _SETTLED_LOOKS for one in opened):
            time.sleep(0.2)
        for one in opened:
            one.looks.clear()
        yield opened
    finally:
        for one in opened:
            one.close()


def fill(port: int, sessions: int) -> None:
    """Have so many sessions run, of one to five events each."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        for begin in range(1, sessions + 1, 200):
            visitors = range(begin, min(begin + 200, sessions + 1))
            events = [
                {"visitor": f"v{number}", "name": name, "item": f"shoes-{number % 60}", "price": 9.5}
                for number in visitors
                for name in _NAMES[: 1 + number % len(_NAMES)]
            ]
            client.post("/v1/events?scores=none", json=events).raise_for_status()


def page(port: int, seconds: int) -> dict[str, list[float]]:
    """Frames and long tasks of the live view, ms."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        raise SystemExit("install chromium, or leave the page out with --no-page")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        opened.goto(f"http://127.0.0.1:{port}/console#live")
        opened.wait_for_selector(".sessions tbody tr", timeout=60_000)
        opened.wait_for_timeout(5_000)
        found: dict[str, list[float]] = opened.evaluate(_FRAMES, seconds)
        browser.close()
    return found


def at(values: list[float], share: float) -> float:
    """A quantile."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def main() -> None:
    """Fill, ask in turn, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--consoles", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=LEAST_SECONDS)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--no-page", action="store_true")
    parser.add_argument("--set", action="append", default=[], help="a setting of the service, as for lotse serve")
    options = parser.parse_args()
    if options.seconds < LEAST_SECONDS:
        parser.error(f"--seconds: at least {LEAST_SECONDS}")
    needs("wrk", "wrk2")
    os.environ["LOTSE_VISITORS"] = str(options.sessions)
    states = (0, options.consoles)
    rates: dict[int, list[float]] = {state: [] for state in states}
    open_loop: dict[int, list[Latencies]] = {state: [] for state in states}
    looks: list[dict[str, Any]] = []
    received, listened = 0, 0.0
    with trained_folder() as folder, lotse(folder, *options.set) as service:
        fill(service.port, options.sessions)
        with consoles(service.port, 1) as opened:
            time.sleep(_ALONE_SECONDS)
            alone = [look["took_seconds"] for look in opened[0].looks]
        highest = median([ask(service.port, "/v1/events", 4, SCRIPT.name)[0] for _ in range(3)])
        for run in range(options.runs):
            for state in states if run % 2 == 0 else reversed(states):
                with consoles(service.port, state) as opened:
                    begin = time.monotonic()
                    rates[state].append(ask(service.port, "/v1/events", 5, SCRIPT.name)[0])
                    open_loop[state].append(attack(service.port, options.share * highest, options.seconds))
                    for one in opened:
                        looks += one.looks
                        received += one.received
                        listened += time.monotonic() - begin
                console.print(f"  {state} consoles: {rates[state][-1]:,.0f}/s, {open_loop[state][-1]}", style="dim")
        shown = None
        if not options.no_page:
            with beside(service.port, highest / 10):
                shown = page(service.port, 20)
    tell(options, states, rates, open_loop)
    took, live = [look["took_seconds"] for look in looks], looks[-1]["live"]
    console.print(
        f"a look at {live:,} sessions takes {median(alone):.2f} s without a load ({len(alone)} looks), beside it "
        f"{median(took):.2f} s ({len(took)} looks, p99 {at(took, 0.99):.2f} s); a console is told "
        f"{received / listened / 1000:.1f} kB/s"
    )
    if shown is not None:
        frames, tasks = shown["frames"], shown["tasks"]
        console.print(
            f"the page: {len(frames):,} frames in 20 s, p50 {at(frames, 0.5):.1f} ms, p99 {at(frames, 0.99):.1f} ms, "
            f"longest {max(frames):.0f} ms; {len(tasks)} long tasks, longest {max(tasks, default=0):.0f} ms"
        )


@contextmanager
def beside(port: int, rate: float) -> Iterator[None]:
    """Events at a rate meanwhile."""
    command = ["wrk2", "-t1", f"-c{CONNECTIONS}", "-d120s", f"-R{rate:.0f}", "-s", str(SCRIPT)]
    running = subprocess.Popen([*command, f"http://127.0.0.1:{port}"], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        running.terminate()
        running.wait()


def tell(
    options: argparse.Namespace,
    states: tuple[int, ...],
    rates: dict[int, list[float]],
    open_loop: dict[int, list[Latencies]],
) -> None:
    """The table."""
    rows = []
    for state in states:
        middle = middle_of(open_loop[state])
        rows.append(
            [
                str(state), f"{median(rates[state]):,.0f}", f"{median(rates[state]) / median(rates[0]):.2f}x",
                f"{middle.rate:,.0f}", f"{middle.p50:.2f}", f"{middle.p99:.2f}", f"{middle.p999:.2f}",
                str(sum(one.failed for one in open_loop[state])),
            ]
        )  # fmt: skip
    report(
        f"{options.sessions:,} sessions run; one worker; latencies at {options.share:.0%} of the highest load, ms",
        ["consoles", "highest/s", "ratio", "open loop/s", "p50", "p99", "p99.9", "failed"],
        rows,
    )


if __name__ == "__main__":
    main()
