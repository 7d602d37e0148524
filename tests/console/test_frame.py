"""The console's frame in Chromium: the key, colours, language, keyboard, charts, tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving.console.shell import VIEWS
from serving.keys import KeyFile
from tests.console.conftest import serve
from tests.console.pages import NARROW, WIDE, Opened
from tests.workspace import ROOT, Service

STATIC = ROOT / "serving" / "console" / "static"
FILES = sorted(path.name for path in STATIC.iterdir() if path.suffix in (".js", ".css", ".svg"))


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[tuple[Service, str]]:
    """A service with a secret key, and the key."""
    secret = KeyFile(tmp_path / "work" / "lotse-data").create("secret", "console")[1]
    running = serve(tmp_path / "work", None)
    yield running, secret
    running.stop()


def test_the_key_is_asked_for_and_kept_nowhere(keyed: tuple[Service, str], page_at: Callable[..., Opened]) -> None:
    service, secret = keyed
    opened = page_at(WIDE, "dark", "en", service)
    opened.allowed = ["401"]
    page = opened.page
    page.goto(f"http://127.0.0.1:{service.port}/console")
    dialog = page.get_by_role("dialog", name="A secret key is needed")
    dialog.wait_for()
    assert page.evaluate("document.activeElement.type") == "password"
    dialog.get_by_label("Secret key").fill("lotse_sec_wrong")
    dialog.get_by_role("button", name="Use this key").click()
    page.get_by_text("the key is none of this service's").wait_for()
    page.get_by_role("dialog").get_by_label("Secret key").fill(secret)
    page.keyboard.press("Enter")
    page.wait_for_selector('.state[data-state="running"]')
    page.get_by_role("button", name="Forget key").wait_for()
    kept = page.evaluate(
        "[location.href, JSON.stringify({...localStorage}), JSON.stringify({...sessionStorage}), document.cookie, "
        "document.documentElement.outerHTML].join()"
    )
    assert secret not in kept and secret[:24] not in kept
    assert [url for url in opened.asked if "lotse_sec" in url] == []
    assert page.context.cookies() == []
    page.reload()
    page.get_by_role("dialog", name="A secret key is needed").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("alert").first.wait_for()
    assert page.locator(".state").inner_text() == "Not connected"
    assert secret not in service.log.read_text()


def test_colours_and_language_are_chosen_and_kept(empty_service: Service, page_at: Callable[..., Opened]) -> None:
    opened = page_at(WIDE, "dark", "en", empty_service)
    page = opened.show("live")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.get_by_label("Colours").select_option("light")
    light = page.evaluate(background)
    assert dark != light and page.evaluate("document.documentElement.dataset.theme") == "light"
    page.get_by_label("Language").select_option("de")
    page.get_by_role("button", name="Anhalten").wait_for()
    assert page.evaluate("document.documentElement.lang") == "de"
    assert page.evaluate("document.activeElement.id") == "choose-language"
    page.reload()
    page.get_by_role("button", name="Anhalten").wait_for()
    assert page.evaluate(background) == light
    page.get_by_label("Farben").select_option("system")
    assert page.evaluate(background) == dark
    page.emulate_media(color_scheme="light")
    assert page.evaluate(background) == light


def test_tabs_are_gone_through_by_keyboard(empty_service: Service, page_at: Callable[..., Opened]) -> None:
    opened = page_at(WIDE, "light", "en", empty_service)
    page = opened.show("live")
    tabs = page.get_by_role("tab").evaluate_all("all => all.map((one) => one.id.slice(4))")
    assert tabs == [view for view in VIEWS if f"{view}.js" in FILES]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "tab-live"
    for view in [*tabs[1:], tabs[0]]:
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.id") == f"tab-{view}"
        page.wait_for_selector(f'#tab-{view}[aria-selected="true"]')
        assert page.evaluate("location.hash") == f"#{view}"
        assert page.locator("[role=tab][tabindex='0']").count() == 1
    # what a view needs to load must not be cut off by the end of the page
    page.wait_for_selector('#view[data-ready="live"]')
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


def test_every_text_is_there_in_both_languages(empty_service: Service, page_at: Callable[..., Opened]) -> None:
    page = page_at(WIDE, "light", "en", empty_service).show("live")
    modules = [name for name in FILES if name == "texts.js" or name.endswith("_texts.js")]
    assert "live_texts.js" in modules
    for name in modules:
        texts = page.evaluate(f'import("/console/static/{name}").then((module) => module.texts)')
        assert texts["en"].keys() == texts["de"].keys(), name
        for key, text in texts["en"].items():
            assert text and texts["de"][key], (name, key)
            assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", texts["de"][key])), (name, key)


def test_a_text_that_is_missing_is_an_error(empty_service: Service, page_at: Callable[..., Opened]) -> None:
    page = page_at(WIDE, "light", "en", empty_service).show("live")
    said = page.evaluate(
        'import("/console/static/frame.js").then((frame) => { try { return frame.translator({})("no.such"); } '
        "catch (error) { return error.message; } })"
    )
    assert said == "no text no.such in en"


FORMATS = """import("/console/static/frame.js").then(({ contextFor }) => {
  const { number, percent, seconds, day, time } = contextFor("live", {}, null);
  return [number(1234567.891, 1), number(null), percent(0.1234), percent(undefined), seconds(7), seconds(0.42),
    seconds(125), seconds(7325), seconds(200000), day(1771622898123), time(null)];
})"""


@pytest.mark.parametrize(
    ("language", "written"),
    [
        (
            "en",
            ["1,234,567.9", "–", "12.3%", "–", "7 s", "0.4 s", "2 min 5 s", "2 h 2 min", "2 d 7 h", "20 Feb 2026", "–"],
        ),
        (
            "de",
            [
                "1.234.567,9",
                "–",
                "12,3\xa0%",
                "–",
                "7 s",
                "0,4 s",
                "2 min 5 s",
                "2 h 2 min",
                "2 T 7 h",
                "20.02.2026",
                "–",
            ],
        ),
    ],
)
def test_numbers_are_written_as_the_language_has_it(
    empty_service: Service, page_at: Callable[..., Opened], language: str, written: list[str]
) -> None:
    page = page_at(WIDE, "light", language, empty_service).show("live")
    found = page.evaluate(FORMATS)
    # which English a day is written in is the browser's affair
    assert [*found[:9], found[10]] == [*written[:9], written[10]]
    assert "2026" in found[9] and "20" in found[9]


CHART = """import("/console/static/frame.js").then(({ contextFor, element }) => {
  const node = element("div", { id: "drawing" });
  document.getElementById("view").append(node);
  const { chart } = contextFor("live", {}, null);
  window.drawing = chart(node, [{ type: "bar", x: ["a", "b"], y: [1, 3], marker: { color: "var(--series-2)" } }],
    { height: 300 }, "Two bars");
})"""


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_chart_is_drawn_in_the_themes_colours_as_wide_as_its_place(
    empty_service: Service, page_at: Callable[..., Opened], width: int
) -> None:
    opened = page_at(width, "dark", "en", empty_service)
    page = opened.show("live")
    page.evaluate(CHART)
    page.wait_for_selector("#drawing .bars .point")
    drawing = page.get_by_role("img", name="Two bars")
    fill = "getComputedStyle(document.querySelector('#drawing .point path')).fill"
    assert page.evaluate(fill) == "rgb(240, 160, 75)"
    page.get_by_label("Colours").select_option("light")
    opened.until(f"{fill} === 'rgb(189, 91, 8)'")
    page.set_viewport_size({"width": NARROW, "height": 700})
    opened.until("document.querySelector('#drawing svg').clientWidth <= document.querySelector('#drawing').clientWidth")
    opened.fits()
    assert drawing.evaluate("node => node.clientWidth") <= NARROW
    page.evaluate("window.drawing.update([{ type: 'bar', x: ['a', 'b', 'c'], y: [1, 2, 3] }])")
    opened.until("document.querySelectorAll('#drawing .point').length === 3")
    page.evaluate("window.drawing.remove()")
    assert page.locator("#drawing svg").count() == 0


TABLE = """import("/console/static/frame.js").then(({ contextFor }) => {
  const { table } = contextFor("live", {}, null);
  const rows = [{ name: "<b>one</b>", count: 3 }, { name: "two", count: 7 }, { name: "three", count: null }];
  document.getElementById("view").append(table([
    { label: "Name", header: true, value: (row) => row.name, sort: (row) => row.name },
    { label: "Count", value: (row) => String(row.count), raw: (row) => row.count, sort: (row) => row.count },
  ], rows, "Some counts"));
})"""


def test_a_table_sorts_and_takes_no_markup_from_data(empty_service: Service, page_at: Callable[..., Opened]) -> None:
    page = page_at(WIDE, "dark", "en", empty_service).show("live")
    page.evaluate(TABLE)
    table = page.get_by_role("table", name="Some counts")
    names = "all => all.map((one) => one.textContent)"
    assert table.get_by_role("rowheader").evaluate_all(names) == ["<b>one</b>", "two", "three"]
    table.get_by_role("button", name="Count").click()
    assert table.get_by_role("rowheader").evaluate_all(names) == ["two", "<b>one</b>", "three"]
    assert table.get_by_role("columnheader", name="Count").get_attribute("aria-sort") == "descending"
    table.get_by_role("button", name="Count").press("Enter")
    assert table.locator("td").evaluate_all("all => all.map((one) => one.dataset.value)") == ["", "3", "7"]
