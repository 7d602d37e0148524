"""The starter for Spring Boot as it is built from this checkout, and the sample shop of its tests as a process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx

from tests.cassandra_server import java
from tests.once import alone
from tests.server_process import free_ports
from tests.workspace import ROOT

CLIENT = ROOT / "clients" / "spring-boot"
_COMPILED = CLIENT / "target" / ".compiled"
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
# what a browser sends when somebody opens a page
OPENED = {"user-agent": AGENT, "accept": "text/html,application/xhtml+xml,*/*;q=0.8", "sec-fetch-dest": "document"}
CONSENTED = "measure-link-personalise"


def maven(*goals: str, **environment: str) -> str:
    """What Maven prints, which must end well; two processes that run tests wait for each other."""
    # it is over before the second compiler has paid off
    quick = {"MAVEN_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
    settings = {**os.environ, **quick, "JAVA_HOME": str(java().parents[1]), **environment}
    with alone(ROOT / ".cache" / "spring.lock"):
        done = subprocess.run(
            ["mvn", "-q", "-B", *goals],
            cwd=CLIENT,
            env=settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    _COMPILED.touch()
    return done.stdout


@lru_cache
def classpath() -> str:
    """Of the starter, its tests and everything that they need."""
    written = [file.stat().st_mtime for file in (CLIENT / "pom.xml", *(CLIENT / "src").rglob("*")) if file.is_file()]
    if not _COMPILED.exists() or _COMPILED.stat().st_mtime < max(written):
        maven("test-compile")
    target = CLIENT / "target"
    return f"{target}/classes:{target}/test-classes:{(target / 'test.classpath').read_text().strip()}"


def command(main: str, *, compiled: bool = False) -> list[str | Path]:
    """A Java program out of the tests; compiled: as well as Java can in the long run, else as fast as it can."""
    how = [] if compiled else ["-XX:TieredStopAtLevel=1"]
    return [java(), "-XX:+UseSerialGC", "-Xmx256m", *how, "-cp", classpath(), main]


class Shop:
    """The sample shop as a process of its own."""

    def __init__(self, folder: Path, url: str, key: str = "", *, compiled: bool = False, **settings: object) -> None:
        """url, key: of the service; compiled: as of `command`; settings: of the starter, as `queue__retry_ms=50`."""
        (self.port,) = free_ports(1)
        self.url, self.log = f"http://127.0.0.1:{self.port}", folder / f"shop-{self.port}.log"
        arguments = [f"--lotse.{name.replace('__', '.').replace('_', '-')}={value}" for name, value in settings.items()]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command("org.lotse.shop.Shop", compiled=compiled), f"--server.port={self.port}", *arguments],
                cwd=folder, stdout=log, stderr=log, env={**os.environ, "LOTSE_URL": url, "LOTSE_KEY": key},
            )  # fmt: skip

    def __enter__(self) -> Shop:
        deadline = time.monotonic() + 90
        with httpx.Client(base_url=self.url) as http:
            while time.monotonic() < deadline:
                assert self.process.poll() is None, self.log.read_text()
                with suppress(httpx.TransportError):
                    http.get("/actuator/health", timeout=20).raise_for_status()
                    return self
                time.sleep(0.1)
        raise AssertionError(f"not ready: {self.log.read_text()}")

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=20)

    def end(self) -> int:
        """End it as an operator does; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def browser(self, consent: str = "", **headers: str) -> httpx.Client:
        """A visitor; consent: what its consent manager's cookie says."""
        cookies = {"consent": consent} if consent else {}
        return httpx.Client(base_url=self.url, headers={**OPENED, **headers}, cookies=cookies, timeout=20)

    def metric(self, name: str, **tags: str) -> float:
        """A metric as of now."""
        asked = [("tag", f"{tag}:{value}") for tag, value in tags.items()]
        answer = httpx.get(f"{self.url}/actuator/metrics/lotse.{name}", params=asked)
        found: float = answer.json()["measurements"][0]["value"]
        return found


def page(browser: httpx.Client, path: str = "/", **headers: str) -> dict[str, Any]:
    """Open a page of the shop; what it knows of its session."""
    answer = browser.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    found = re.search("<pre id=lotse>(.*)</pre>", answer.text)
    assert found, answer.text
    told: dict[str, Any] = json.loads(found[1])
    return told
