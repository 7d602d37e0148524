"""What a page of a Django shop takes longer with the middleware: scores and flags are awaited, 30 ms at most.

    python -m benchmarks.django_pages TRAINED [--pages 1000]

TRAINED is a folder where `lotse train` has run. The shop of the tests runs under each server with and without the
middleware, and with a service that is not there; one visitor of each loads a page, in turn.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from benchmarks.measure import report
from serving.keys import KeyFile
from tests.clients.django.running import FLAGS, SERVERS, DjangoShop, Server, agree, opened, running
from tests.server_process import free_ports
from tests.workspace import ROOT, Service, packed

_WARMING: Final = 50


def service_with_key(trained: Path, folder: Path) -> tuple[Service, str]:
    """A running service, and a secret key of it."""
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "flags.json").write_text(json.dumps(FLAGS))
    (folder / "lotse-data").mkdir()
    _, key = KeyFile(folder / "lotse-data").create("secret", "shop")
    return Service(folder, *packed(trained), "experiments.file=flags.json").start(), key


def measure(server: Server, shops: dict[str, DjangoShop], pages: int) -> list[list[str]]:
    """Of each shop its name, how many pages had scores, and the milliseconds at some quantiles."""
    took: dict[str, list[float]] = {name: [] for name in shops}
    scored = dict.fromkeys(shops, 0)
    with ExitStack() as open_browsers:
        browsers: dict[str, httpx.Client] = {
            name: open_browsers.enter_context(shop.browser()) for name, shop in shops.items()
        }
        for name in ("with", "service away"):
            agree(browsers[name], "measure", "link")
        for turn in range(_WARMING + pages):
            for name, browser in browsers.items():
                page = opened(browser)
                if turn >= _WARMING:
                    took[name].append(page.took_ms)
                    scored[name] += page.known.get("reason") == "ok"
    rows = []
    for name, values in took.items():
        quantiles = np.quantile(values, [0.5, 0.99])
        rows.append([server, name, str(scored[name]), *(f"{each:.2f}" for each in quantiles), f"{max(values):.1f}"])
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("trained", type=Path)
    parser.add_argument("--pages", type=int, default=1_000)
    options = parser.parse_args()
    (nobody,) = free_ports(1)
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        service, key = service_with_key(options.trained, folder / "service")
        lotse: dict[str, Any] = {"URL": f"http://127.0.0.1:{service.port}", "KEY": key, "FLAGS": "all"}
        kinds: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
            "without": (lotse, {"middleware": False}),
            "with": (lotse, {}),
            "service away": ({**lotse, "URL": f"http://127.0.0.1:{nobody}"}, {}),
        }
        try:
            for server in SERVERS:
                with ExitStack() as started:
                    shops = {}
                    for name, (setting, more) in kinds.items():
                        own = folder / f"{server} {name}"
                        own.mkdir()
                        shops[name] = started.enter_context(running(DjangoShop(server, own, setting, **more)))
                    rows += measure(server, shops, options.pages)
        finally:
            service.stop()
    columns = ["server", "middleware", "with scores", "p50 ms", "p99 ms", "longest ms"]
    report(f"{options.pages} pages of each shop, in turn", columns, rows)


if __name__ == "__main__":
    main()
