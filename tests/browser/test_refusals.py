"""A page of another origin sees why its tracker's request was refused, and when to send it again."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.browser.clients import AGENT, COLLECTOR, ELSEWHERE, SHOP, shop
from tests.workspace import Service

ASK = """
async ([url, body]) => {
  const told = []
  for (let time = 0; time < 3; time++) {
    const answer = await fetch(url, { method: "POST", body, credentials: "include" })
    told.push([answer.status, answer.headers.get("retry-after")])
  }
  return told
}
"""
EVENT = '{"n":"pageview","u":"https://www.shop.example/","d":"shop.example"}'


@pytest.fixture(scope="module")
def overrides() -> tuple[str, ...]:
    return (
        'limits.trusted_proxies=["127.0.0.1"]',
        "limits.address_events_per_second=0.02",
        "limits.burst_seconds=50",
    )


@pytest.mark.parametrize(("site", "address"), [(COLLECTOR, "203.0.113.9"), (ELSEWHERE, "198.51.100.9")])
def test_too_much_at_once_is_told(collector: Service, browser: Browser, site: str, address: str) -> None:
    with shop(browser, "", user_agent=AGENT, extra_http_headers={"x-forwarded-for": address}) as page:
        page.goto(f"{SHOP}/")
        first, *others = page.evaluate(ASK, [f"{site}/api/event", EVENT])
    assert first == [202, None]
    assert [status for status, _ in others] == [429, 429]
    assert all(0 < int(seconds) <= 60 for _, seconds in others)
