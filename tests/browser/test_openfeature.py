"""OpenFeature's and GrowthBook's SDKs as their packages are: in a page of the shop, and in Node."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Response

from serving.keys import KeyFile, Kind
from tests.browser.clients import COLLECTOR, SHOP, bundled, node, shop
from tests.workspace import Service, wait_until

CONTENT: dict[str, Any] = {
    "features": {
        "guide": {
            "defaultValue": "none",
            # settled by the second page, whatever the model says of the first
            "rules": [{"key": "stay", "condition": {"bounce": {"$lt": 0.001}}, "variations": ["short", "long"]}],
        },
        "price": {"defaultValue": 1.0, "rules": [{"condition": {"country": "DE"}, "force": 2.5}]},
        "links": {"defaultValue": {"more": ["a", "b"]}},
        "open": {"defaultValue": False, "rules": [{"condition": {"events": {"$gte": 1}}, "force": True}]},
    },
    "experiments": {
        "stay": {"arms": ["short", "long"], "goals": [{"name": "more", "column": "events", "primary": True}]}
    },
    "attributes": ["country"],
}
PAGE = """
import { OpenFeature, ProviderEvents } from "@openfeature/web-sdk"
import { OFREPWebProvider } from "@openfeature/ofrep-web-provider"

const key = "%s", base = "%s"
window.told = []
window.sent = async (visitor, name) => {
  const body = JSON.stringify({ visitor, name, page: location.href })
  return (await fetch(`${base}/v1/events?key=${key}`, { method: "POST", body })).json()
}
window.begun = async (token, options) => {
  await OpenFeature.setContext({ targetingKey: token, country: "DE" })
  const headers = [["X-API-Key", key]]
  const provider = new OFREPWebProvider({ baseUrl: base, headers, cacheMode: "disabled", ...options })
  await OpenFeature.setProviderAndWait(provider)
  window.flags = OpenFeature.getClient()
  for (const event of [ProviderEvents.ConfigurationChanged, ProviderEvents.Stale, ProviderEvents.Error]) {
    flags.addHandler(event, (details) => told.push([event, details.flagsChanged || details.message]))
  }
}
"""
NODE = """
import { OpenFeature } from "@openfeature/server-sdk"
import { OFREPProvider } from "@openfeature/ofrep-provider"

const { base, key, who } = JSON.parse(process.env.TOLD)
const headers = [["Authorization", `Bearer ${key}`]]
await OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl: base, headers }))
const client = OpenFeature.getClient(), context = { targetingKey: who, country: "DE" }
const found = {
  guide: await client.getStringDetails("guide", "default", context),
  price: await client.getNumberDetails("price", 0, context),
  links: await client.getObjectDetails("links", {}, context),
  open: await client.getBooleanDetails("open", false, context),
  other: await client.getStringDetails("other", "default", context),
  wrong: await client.getBooleanDetails("guide", true, context),
}
let asked = 0, last
do { last = await client.getBooleanDetails("open", false, context) } while (!last.errorCode && ++asked < 500)
console.log(JSON.stringify({ found, asked, last }))
"""
GROWTHBOOK = """
import { GrowthBook } from "@growthbook/growthbook"

const { base, key } = JSON.parse(process.env.TOLD)
const client = new GrowthBook({ apiHost: base, clientKey: key, attributes: { country: "DE", id: "x" } })
await client.init({ timeout: 5000 })
const value = (name) => [name, client.getFeatureValue(name, "unknown")]
const found = Object.fromEntries(["guide", "price", "open"].map(value))
console.log(JSON.stringify(found))
process.exit(0)
"""


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    file = tmp_path_factory.mktemp("flags") / "experiments.json"
    file.write_text(json.dumps(CONTENT))
    more = "stream.poll_seconds=0.2", "limits.key_events_per_second=40"
    return (f"experiments.file={file}", f'cors.origins=["{SHOP}"]', *more)


def key_of(service: Service, kind: Kind) -> str:
    """A new key, which the service knows."""
    _, shown = KeyFile(service.folder / "lotse-data").create(kind, "shop")
    wanted = [200, 401]
    wait_until(lambda: [service.http.get(f"/api/features/{key}").status_code for key in (shown, "other")] == wanted)
    return shown


def until(page: Page, true: Callable[[], bool]) -> None:
    """Wait as `wait_until` does, while the page's own events are heard of."""

    def heard() -> bool:
        page.wait_for_timeout(50)
        return true()

    wait_until(heard)


def changes(page: Page) -> list[Any]:
    return [about for event, about in page.evaluate("told") if event == "PROVIDER_CONFIGURATION_CHANGED"]


def test_a_page_gets_its_flags_and_hears_that_they_changed(collector: Service, browser: Browser) -> None:
    with shop(browser, bundled(PAGE % (key_of(collector, "public"), COLLECTOR))) as page:
        answers: list[Response] = []
        page.on("response", lambda answer: answers.append(answer) if "/ofrep/" in answer.url else None)
        page.goto(f"{SHOP}/")
        first = page.evaluate("sent('jane', 'page_view')")
        assert first["scores"]["bounce"] > 0.001
        page.evaluate("token => begun(token)", first["session"])
        assert page.evaluate("flags.getStringDetails('guide', 'default')")["value"] == "none"
        assert page.evaluate("flags.getNumberDetails('price', 0)")["value"] == 2.5
        assert page.evaluate("flags.getObjectValue('links', {})") == {"more": ["a", "b"]}
        assert page.evaluate("flags.getBooleanValue('open', false)") is True
        until(page, lambda: any("/streams/" in answer.url for answer in answers))
        assert changes(page) == []
        second = page.evaluate("sent('jane', 'page_view')")
        assert second["scores"]["bounce"] == 0
        until(page, lambda: bool(changes(page)))
        assert changes(page)[0] == ["guide"]
        shown = page.evaluate("flags.getStringDetails('guide', 'default')")
        assert shown["reason"] == "SPLIT" and shown["value"] == shown["variant"]
        # the service says the same elsewhere; one more event changes no flag, and nobody asks again for it
        named = collector.http.post(
            "/ofrep/v1/evaluate/flags/guide",
            json={"context": {"targetingKey": "jane"}},
            headers={"authorization": f"Bearer {key_of(collector, 'secret')}"},
        )
        assert named.json()["value"] == shown["value"]
        page.wait_for_timeout(600)
        asked = len(answers)
        page.evaluate("sent('jane', 'view_item')")
        page.wait_for_timeout(600)
        assert len(answers) == asked and len(changes(page)) == 1
        assert [event for event, _ in page.evaluate("told") if event != "PROVIDER_CONFIGURATION_CHANGED"] == []


def test_a_page_that_polls_is_answered_with_304(collector: Service, browser: Browser) -> None:
    with shop(browser, bundled(PAGE % (key_of(collector, "public"), COLLECTOR))) as page:
        statuses: list[int] = []
        page.on("response", lambda answer: statuses.append(answer.status) if "/ofrep/" in answer.url else None)
        page.goto(f"{SHOP}/")
        token = page.evaluate("sent('john', 'page_view')")["session"]
        page.evaluate("token => begun(token, { pollInterval: 200, changeDetection: 'polling' })", token)
        until(page, lambda: statuses.count(304) >= 2)
        assert statuses[0] == 200 and set(statuses) == {200, 304}
        page.evaluate("sent('john', 'page_view')")
        until(page, lambda: ["guide"] in changes(page))


def test_a_server_asks_by_node(collector: Service) -> None:
    secret = key_of(collector, "secret")
    bearer = {"authorization": f"Bearer {secret}"}
    for _ in range(2):
        event = {"visitor": "nora", "name": "page_view"}
        told = collector.http.post("/v1/events?flags=all", json=event, headers=bearer).json()
    about = {"base": f"https://127.0.0.1:{collector.port}", "key": secret, "who": "nora"}
    printed = json.loads(node(NODE, TOLD=json.dumps(about), NODE_EXTRA_CA_CERTS=collector.verify))
    found = printed["found"]
    assert found["guide"]["value"] == told["flags"]["guide"]["value"] and found["guide"]["reason"] == "SPLIT"
    assert found["guide"]["variant"] == told["flags"]["guide"]["variant"]
    assert (found["price"]["value"], found["links"]["value"]) == (2.5, {"more": ["a", "b"]})
    assert found["open"]["value"] is True and found["open"]["reason"] == "TARGETING_MATCH"
    assert (found["other"]["value"], found["other"]["errorCode"]) == ("default", "FLAG_NOT_FOUND")
    assert (found["wrong"]["value"], found["wrong"]["errorCode"]) == (True, "TYPE_MISMATCH")
    # 40 a second, five seconds' worth at once: then the provider waits as long as Retry-After says
    assert printed["asked"] < 500 and printed["last"]["value"] is False and printed["last"]["errorCode"] == "GENERAL"


def test_growthbooks_sdk_in_node(collector: Service) -> None:
    about = {"base": f"https://127.0.0.1:{collector.port}", "key": key_of(collector, "public")}
    found = json.loads(node(GROWTHBOOK, TOLD=json.dumps(about), NODE_EXTRA_CA_CERTS=collector.verify))
    assert found == {"guide": "none", "price": 2.5, "open": False}


def test_the_packages_are_those_that_the_docs_name() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "flags.md").read_text()
    packages = json.loads((Path(__file__).parent / "package.json").read_text())["dependencies"]
    for name, version in packages.items():
        if name.startswith(("@openfeature/ofrep-p", "@openfeature/ofrep-w", "@growthbook/")):
            assert f"`{name}` {version}" in docs, name
