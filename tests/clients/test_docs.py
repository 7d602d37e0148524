"""The examples of docs/clients.md, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import sync_playwright

from tests.browser.clients import AGENT, COLLECTOR, SHOP, chromium, shop
from tests.certificate import certificate
from tests.clients.conftest import FLAGS, key_of
from tests.clients.express_build import built
from tests.server_process import free_ports
from tests.workspace import ROOT, Service, packed, wait_until, workspace

PAGE = (ROOT / "docs" / "clients.md").read_text()


def blocks(section: str, language: str) -> list[str]:
    """The code of a section, in a language."""
    found = re.search(rf"^##+ {section}\n(.*?)(?=^##+ |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, section
    return re.findall(rf"^```{language}\n(.*?)^```$", found[1], re.MULTILINE | re.DOTALL)


def told(service: Service, key: str, **more: str) -> dict[str, str]:
    """The environment of an example."""
    python = f"{ROOT / 'clients/python/src'}:{os.environ.get('PYTHONPATH', '')}"
    return {
        **os.environ,
        "LOTSE_URL": service.url,
        "LOTSE_KEY": key,
        "PYTHONPATH": python,
        **more,
    }


def ran(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_curl(keyed: Service, secret: str, tmp_path: Path) -> None:
    (script,) = blocks("curl", "sh")
    printed = ran(["bash", "-eu", "-c", script], tmp_path, told(keyed, secret))
    assert '"help_offer":{"value":"none"' in printed and '"explanations"' in printed
    assert '"events":3' in printed and "event: score" in printed
    assert '"key":"help_offer","reason":"TARGETING_MATCH"' in printed and '"records":1' in printed
    assert "detail" not in printed


def test_fetch_on_a_server(keyed: Service, secret: str, tmp_path: Path) -> None:
    script = blocks("fetch", "js")[0]
    # the first request of a process opens the connection, and this machine may be busy
    patient = script.replace("ms = 30", "ms = 5000")
    printed = ran(["node", "--input-type=module", "-e", patient], tmp_path, told(keyed, secret))
    assert re.fullmatch(r"0\.\d+ none\n", printed)
    (port,) = free_ports(1)
    away = told(keyed, secret) | {"LOTSE_URL": f"http://127.0.0.1:{port}"}
    assert ran(["node", "--input-type=module", "-e", script], tmp_path, away) == "undefined none\n"


def test_fetch_in_a_page(trained: Path, tmp_path: Path) -> None:
    folder = workspace(tmp_path / "work")
    (folder / "flags.json").write_text(json.dumps(FLAGS))
    shown, private = certificate(folder)
    overrides = [
        f"tls.certificate={shown}",
        f"tls.key={private}",
        "experiments.file=flags.json",
        f'cors.origins=["{SHOP}"]',
    ]
    service = Service(folder, *packed(trained), *overrides)
    service.scheme, service.verify = "https", str(shown)
    service.start()
    try:
        script = blocks("fetch", "js")[1].replace("lotse_pub_...", key_of(service, "public"))
        assert COLLECTOR in script
        with sync_playwright() as driver, chromium(driver, service.port) as browser, shop(browser, "") as page:
            page.goto(f"{SHOP}/sale")
            page.evaluate(
                "script => import('data:text/javascript,' + encodeURIComponent(script)).then(() => 0)", script
            )
            page.wait_for_selector("body[data-offer=none][data-exit^='0.']")
    finally:
        service.stop()


def test_python(keyed: Service, secret: str, tmp_path: Path) -> None:
    (script,) = blocks("Python", "python")
    printed = ran([sys.executable, "-W", "error", "-c", script], tmp_path, told(keyed, secret))
    assert re.match(r"0\.\d+ none\nCrossing\(head='bounce', threshold=0.0001, direction='up'", printed), printed


def test_express(keyed: Service, secret: str) -> None:
    (script,) = blocks("Express", "js")
    (port,) = free_ports(1)
    # a package is found by its own name from its own folder
    process = subprocess.Popen(
        ["node", "--input-type=module", "-e", script], cwd=built(), env=told(keyed, secret, PORT=str(port)), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    headers, cookies = {"user-agent": AGENT, "accept": "text/html"}, {"cmp": "yes"}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, cookies=cookies) as browser:

            def answers() -> bool:
                assert process.poll() is None, process.communicate()
                try:
                    return "Offer: " in browser.get("/").text
                except httpx.TransportError:
                    return False

            wait_until(answers)
            assert browser.post("/cart").status_code == 302
            visitor = browser.cookies["lotse"].split(".")[0]
            wait_until(lambda: browser.get("/").text == "Offer: chat")
    finally:
        process.terminate()
        process.communicate(timeout=20)
    bearer = {"authorization": f"Bearer {secret}"}
    (record,) = keyed.http.post("/v1/visitors/export", json={"visitor": visitor}, headers=bearer).json()["records"]
    assert record["session"]["cart_adds"] == 1


@pytest.mark.parametrize(
    ("client", "section", "language"), [("express", "Express", "js"), ("python", "Python", "python")]
)
def test_a_clients_own_page_begins_with_the_same_lines(client: str, section: str, language: str) -> None:
    page = (ROOT / "clients" / client / "README.md").read_text()
    (block,) = blocks(section, language)
    assert block in page and len(block.strip().splitlines()) <= 12
