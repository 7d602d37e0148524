"""What Lotse adds to a page of a Spring Boot shop: the same pages with and without the service, over one connection.

    python -m benchmarks.spring

The shop is the sample of the starter's tests, on Tomcat; the service has trained models (`LOTSE_TRAINED` names a folder
with some). Shops take turns, so that both meet the same machine. `/` asks for scores and flags and waits for them,
`/imprint` asks for nothing.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

from benchmarks.measure import report
from benchmarks.services import LOTSE, lotse, trained_folder
from tests.clients.spring_build import CONSENTED, OPENED, Shop

_WARM: Final = 3_000
_TURNS: Final = 20
_PAGES: Final = 250


def main() -> None:
    """Measure, and print a table."""
    with trained_folder() as trained, lotse(trained) as service, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = service.store.parent / "keys"
        create = [*LOTSE, "keys", "create", "--kind", "secret", "--name", "shop", "--set", f"keys.folder={keys}"]
        key = subprocess.run(create, cwd=trained, capture_output=True, text=True, check=True).stdout.strip()
        time.sleep(2)  # the service follows its keys
        url = f"http://127.0.0.1:{service.port}"
        with Shop(folder, url, key, compiled=True) as measured, Shop(folder, "", compiled=True) as bare:
            shops = {"without": bare, "with": measured}
            for path in ("/", "/imprint"):
                _pages(path, shops)


def _pages(path: str, shops: dict[str, Shop]) -> None:
    """One page of every shop, in turns."""
    took: dict[str, list[float]] = {name: [] for name in shops}
    connections = {name: HTTPConnection("127.0.0.1", shop.port) for name, shop in shops.items()}
    for connection in connections.values():
        _open(connection, path, _WARM)
    for _ in range(_TURNS):
        for name, connection in connections.items():
            took[name] += _open(connection, path, _PAGES)
    rows = []
    for name, milliseconds in took.items():
        cuts = statistics.quantiles(milliseconds, n=100)
        rows.append([name, f"{cuts[49]:.2f}", f"{cuts[98]:.2f}"])
    rows.append(["added", *(f"{float(rows[1][place]) - float(rows[0][place]):.2f}" for place in (1, 2))])
    report(f"GET {path}, {len(took['with'])} pages each", ["Lotse", "p50 ms", "p99 ms"], rows)


def _open(connection: HTTPConnection, path: str, pages: int) -> list[float]:
    """Milliseconds of each of some pages, all of one visitor."""
    took = []
    for _ in range(pages):
        begin = time.perf_counter()
        connection.request("GET", path, headers={**OPENED, "cookie": f"consent={CONSENTED}; lotse={'0' * 32}"})
        answer = connection.getresponse()
        body = answer.read()
        took.append((time.perf_counter() - begin) * 1000)
        assert answer.status == 200, body
    return took


if __name__ == "__main__":
    main()
