"""How much later a page of an Express shop comes with the middleware: with a service, without, with one that hangs.

    python -m benchmarks.clients [--pages 300] [--rounds 10]

`lotse serve` with models, and four shops (clients/express/tests/load.mjs): without the middleware, with it, with it and
a service that was killed, with it and one that is paused. One browser asks for page after page, each shop in turn; what
a page took is measured where it is asked for. `LOTSE_TRAINED` names a folder where `lotse train` has run.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from statistics import median, quantiles
from typing import Final

from benchmarks.measure import console, report
from benchmarks.services import ROOT, Running, free_port, lotse, trained_folder

EXPRESS: Final = ROOT / "clients" / "express"
HEADERS: Final = {
    "accept": "text/html",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "x-consent": "measure,link",
}
SHOPS: Final = ("without the middleware", "with it", "with a service that was killed", "with one that hangs")


class Browser:
    """One connection to a shop, and what its pages took in ms."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=20)
        self._headers = dict(HEADERS)
        self.took: list[float] = []
        self.scored = 0

    def load(self, pages: int, *, counted: bool) -> str:
        """Some pages, one after the other; returns why the last had its scores, or had none."""
        reason = ""
        for _ in range(pages):
            begin = time.perf_counter()
            self._connection.request("GET", "/sale", headers=self._headers)
            answer = self._connection.getresponse()
            content = answer.read()
            took = (time.perf_counter() - begin) * 1000
            reason = json.loads(content).get("reason", "")
            if counted:
                self.took.append(took)
                self.scored += reason == "ok"
            if cookie := answer.getheader("set-cookie"):
                self._headers["cookie"] = cookie.partition(";")[0]
        return reason

    def until_scored(self) -> None:
        """A machine that was busy may have had the middleware ask nobody for some seconds."""
        while self.load(1, counted=False) != "ok":
            time.sleep(0.1)

    def close(self) -> None:
        self._connection.close()


@contextmanager
def shop(url: str, *, off: bool = False) -> Iterator[Browser]:
    """A shop whose middleware asks the service at `url`, and a browser in it."""
    told = {**os.environ, "LOTSE_URL": url, "LOTSE_KEY": "lotse_sec_", "LOTSE_OFF": "true" if off else ""}
    told["LOTSE_OPTIONS"] = json.dumps({"queueLimit": 100})
    process = subprocess.Popen(
        ["node", "tests/load.mjs"], cwd=EXPRESS, env=told, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        browser = Browser(int(process.stdout.readline()))
        yield browser
        browser.close()
    finally:
        process.kill()
        process.communicate()


def hold(running: Running, number: signal.Signals) -> None:
    """Send a signal to the service and everything it has started."""
    for process in running.processes():
        os.kill(process, number)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=10)
    told = parser.parse_args()
    if not (EXPRESS / "dist" / "index.js").exists():
        raise SystemExit("the middleware is not built; run: make clients")
    open_to_all = "keys.required=false"
    with trained_folder() as folder, ExitStack() as stack:
        service = stack.enter_context(lotse(folder, open_to_all))
        hangs = stack.enter_context(lotse(folder, open_to_all))
        urls = [f"http://127.0.0.1:{port}" for port in (service.port, service.port, free_port(), hangs.port)]
        browsers = [stack.enter_context(shop(url, off=not place)) for place, url in enumerate(urls)]
        hold(hangs, signal.SIGSTOP)
        stack.callback(hold, hangs, signal.SIGCONT)
        for turn in range(told.rounds + 1):
            for name, browser in zip(SHOPS, browsers, strict=True):
                if name == SHOPS[1]:
                    browser.until_scored()
                browser.load(told.pages, counted=turn > 0)
                console.print(f"  turn {turn}: {name}", style="dim")
        rows = []
        for name, browser in zip(SHOPS, browsers, strict=True):
            p50, p99 = median(browser.took), quantiles(browser.took, n=100)[-1]
            without = browsers[0].took
            added = p50 - median(without), p99 - quantiles(without, n=100)[-1]
            scored = f"{browser.scored / len(browser.took):.1%}"
            figures = [f"{p50:.2f}", f"{p99:.2f}", f"{max(browser.took):.1f}", f"{added[0]:+.2f}", f"{added[1]:+.2f}"]
            rows.append([name, *figures, scored])
        columns = ["a page", "p50 ms", "p99 ms", "longest ms", "added p50", "added p99", "scored"]
        report(f"A page of an Express shop, {told.pages * told.rounds} of each", columns, rows)


if __name__ == "__main__":
    main()
