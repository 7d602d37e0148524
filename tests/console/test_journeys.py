"""The view "Journeys": what it shows is what the API answers, whatever is chosen; in Chromium, over a real service."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from features.events import CHANNELS, DEVICES, PAGE_KINDS
from features.journeys.cohorts import _IN_ITS_COURSE
from features.journeys.report import SINCE
from features.journeys.segments import VISITS
from features.steps import STEPS
from tests.console.handed_on import hand_on
from tests.console.pages import NARROW, WIDE, Opened
from tests.workspace import ROOT, Service

PATH = "/v1/insight/journeys"
Open = Callable[..., Opened]
# What the cells of a table were told: raw numbers where there are some, else the text.
_TABLE = """([caption, within]) => {
  const tables = [...document.querySelectorAll(`${within} table`)].filter((one) => one.caption.textContent === caption)
  if (tables.length !== 1) throw new Error(`${tables.length} tables ${caption}`)
  return [...tables[0].tBodies[0].rows].map((row) => [...row.cells].map((cell) =>
    cell.querySelector("[data-low]") ? [cell.firstChild.dataset.low, cell.firstChild.dataset.high]
      : cell.querySelector("[data-value]")?.dataset.value ?? cell.textContent))
}"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that has handed two weeks of a shop's sessions on."""
    folder = tmp_path_factory.mktemp("journeys")
    closed = hand_on(folder / "before")
    shutil.copytree(ROOT / "configs", folder / "work" / "configs")
    kept = (f"store.closed={closed}", "store.closed_days=100000", "insight.least_visitors=20")
    running = Service(folder / "work", "models.uri=", *kept).start()
    yield running
    running.stop()


@pytest.fixture
def opened(page_at: Open, shop: Service) -> Opened:
    """A wide page in English."""
    return page_at(WIDE, "dark", "en", shop)


def told(service: Service, **asked: Any) -> dict[str, Any]:
    """What the API answers."""
    answer = service.http.get(PATH, params={"depth": 6, **asked}, timeout=60)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def rows(page: Page, caption: str, within: str = "") -> list[list[Any]]:
    """A table of the page, by its caption, as raw values."""
    return [[_raw(cell) for cell in row] for row in page.evaluate(_TABLE, [caption, within])]


def _raw(cell: Any) -> Any:
    if isinstance(cell, list):
        return tuple(map(_raw, cell))
    if cell == "null":
        return None
    try:
        return float(cell)
    except ValueError:
        return cell


def settled(page: Page) -> None:
    """Wait until everything that was asked is shown."""
    page.wait_for_function("() => !document.querySelector('[aria-busy]') && document.querySelector('.journeys .tile')")


def moves(page: Page) -> list[list[Any]]:
    return rows(page, "Moves between steps, place by place")


def lines_of(path: dict[str, Any], places: int, backwards: bool = False) -> list[list[Any]]:
    """The moves of a path as the page writes them."""
    begin = {"end": "begin"} if backwards else {}

    def name(step: str | None) -> str:
        return "rare moves" if step is None else begin.get(step, step)

    return [
        [one["place"], name(one["from"]), name(one["to"]), one["sessions"]]
        for one in path["moves"]
        if one["place"] <= places
    ]


def reached(page: Page, funnel: str) -> list[Any]:
    """How many sessions reached each step of a funnel."""
    return [row[1] for row in rows(page, f"Steps of {funnel}")]


def build(page: Page, *steps: str, chips: tuple[str, ...] = ()) -> None:
    """Click a funnel together and have it counted."""
    builder = page.locator(".builder")
    for name in (*steps, *chips):
        builder.get_by_role("button", name=name, exact=True).click()
    builder.get_by_role("button", name="Count it").click()
    settled(page)


def test_every_number_is_the_apis(opened: Opened, shop: Service) -> None:
    page, found = opened.show("journeys?moves=6"), told(shop)
    settled(page)
    assert opened.value("[data-tile=sessions] [data-value]") == found["sessions"] > 1000
    assert opened.values("[data-tile=sessions] span [data-value]") == [found["visitors"]]
    assert opened.value("[data-tile=brief] [data-value]") == found["cohorts"]["brief"] / found["sessions"]
    assert opened.value("[data-tile=long] [data-value]") == found["cohorts"]["long"] / found["sessions"]
    assert moves(page) == lines_of(found["forward"], 6)
    steps = [[one["place"], one["step"], one["sessions"]] for one in found["forward"]["steps"]]
    assert rows(page, "Steps by place on the way; a step can be chosen") == [one for one in steps if one[0] <= 7]

    ends = [
        [one[name] for name in ("sessions", "began", "ended", "share")] + [(one["low"], one["high"]), one["excess"]]
        for one in found["endings"]["steps"]
    ]
    shown = rows(page, "Where sessions end")
    assert [[*row[1:5], row[5] or (None, None), *row[6:]] for row in shown] == ends
    marked = [row[0].removesuffix(" bottleneck") for row in shown if row[0].endswith("bottleneck")]
    assert marked == [one["step"] for one in found["endings"]["steps"] if one["bottleneck"]] != []

    names = ("median", "mean", "p90", "went_on_median", "ended_median")
    assert rows(page, "Time on each kind of page") == [
        [one["kind"], one["sessions"], *(one[f"{name}_seconds"] for name in names)] for one in found["dwell"]
    ]
    for caption, name in (
        ("First and later visits", "visits"),
        ("By the time since the visit before", "since_the_visit_before"),
    ):
        back = found["returning"][name]
        assert back and rows(page, caption) == [
            [
                *(one[name] for name in ("visit", "sessions", "bought")),
                one["bought"] and one["bought"] / one["sessions"],
                None if one["low"] is None else (one["low"], one["high"]),
            ]
            for one in back
        ]


def test_what_tells_those_that_left_from_those_that_stayed(opened: Opened, shop: Service) -> None:
    page, part = opened.show("journeys"), told(shop)["cohorts"]
    settled(page)
    for chip, at_start in (("Known at the start", True), ("In its course", False)):
        page.get_by_role("button", name=chip).click()
        traits = [one for one in part["traits"] if one["at_start"] == at_start]
        assert traits and [
            [row[1], row[2], row[3], row[4], row[5]] for row in rows(page, "Left within 10 s, or stayed over 5 min")
        ] == [
            [one["brief"], one["long"], one["effect"], (one["low"], one["high"]), "" if one["h"] is None else one["h"]]
            for one in traits
        ]
        names = page.locator("[data-trait]").evaluate_all("all => all.map((one) => one.dataset.trait)")
        assert names == [one["name"] for one in traits]


def test_the_slider_shows_more_and_fewer_moves(opened: Opened, shop: Service) -> None:
    page, found = opened.show("journeys?moves=2"), told(shop, depth=12)
    settled(page)
    slider = page.get_by_label("Moves shown")
    assert moves(page) == lines_of(found["forward"], 2)
    slider.press("ArrowRight")
    expect(page.locator("output")).to_have_text("3 moves")
    assert moves(page) == lines_of(found["forward"], 3)
    slider.press("End")
    settled(page)
    assert moves(page) == lines_of(found["forward"], 12)
    assert "moves=12" in page.url


def test_a_path_goes_on_from_the_bar_that_is_clicked(opened: Opened, shop: Service) -> None:
    page = opened.show("journeys")
    settled(page)

    def click(step: str) -> None:
        page.locator(".sankey-node", has_text=re.compile(f"^{step}$")).first.locator(".node-rect").click()

    page.wait_for_selector(".sankey-node")
    first = told(shop)["entries"][0]["begin"][0]
    click(first)
    page.get_by_role("button", name="Begin with it").click()
    settled(page)
    alone = told(shop, begin=first)["forward"]
    assert moves(page) == lines_of(alone, 4)
    # one more step, by the field
    second = max(
        (one for one in alone["moves"] if one["place"] == 1 and one["to"] not in (None, "rare", "end")),
        key=lambda one: one["sessions"],
    )
    page.get_by_label("then").select_option(second["to"])
    settled(page)
    assert moves(page) == lines_of(told(shop, begin=[first, second["to"]])["forward"], 4)
    assert opened.value(".journeys-part .note [data-value]") == second["sessions"]
    # and away again
    page.get_by_role("button", name=f"Take {second['to']} away").click()
    settled(page)
    assert moves(page) == lines_of(alone, 4)


def test_a_bar_is_tapped(page_at: Open, shop: Service) -> None:
    opened = page_at(NARROW, "light", "en", shop, has_touch=True)
    page, entry = opened.show("journeys"), told(shop)["entries"][0]
    settled(page)
    page.locator(".sankey-node", has_text=re.compile(f"^{entry['begin'][0]}$")).first.locator(".node-rect").tap()
    expect(page.locator(".selection p")).to_contain_text(f"{entry['begin'][0]}, place 1")
    assert opened.value(".selection [data-value]") == entry["sessions"]


def test_backwards_from_a_goal(opened: Opened, shop: Service) -> None:
    page, found = opened.show("journeys"), told(shop)
    settled(page)
    page.get_by_role("button", name="Backwards from a goal").click()
    assert moves(page) == lines_of(found["backward"], 4, backwards=True) != []
    assert found["backward"]["goal"] == ["purchase"] and found["backward"]["after_kept"] > 50
    assert opened.values(".journeys-part .note [data-value]")[:2] == [
        found["backward"]["sessions"],
        found["backward"]["after_kept"],
    ]
    page.get_by_label("Goal").select_option("cart add")
    settled(page)
    assert moves(page) == lines_of(told(shop, goal="cart add")["backward"], 4, backwards=True)
    page.get_by_label("Directly before it").select_option("item")
    settled(page)
    assert moves(page) == lines_of(told(shop, goal=["item", "cart add"])["backward"], 4, backwards=True)
    page.get_by_role("button", name="Take item away").click()
    settled(page)
    # whoever is in the picture is in the funnel of that one step
    build(page, "cart add")
    assert reached(page, "cart add (loose)") == [opened.value(".journeys-part .note [data-value]")]


def test_a_funnel_of_clicks_is_the_path(opened: Opened, shop: Service) -> None:
    page = opened.show("journeys?begin=list&moves=3")
    settled(page)
    build(page, "list", "item", chips=("Strict", "From the entry"))
    (funnel,) = told(shop, funnel="^list >> item")["funnels"]
    assert reached(page, "list > item (strict, from the entry)") == funnel["reached"]
    begun = opened.value(".journeys-part .note [data-value]")
    (went,) = (row[3] for row in moves(page) if row[:3] == [1, "list", "item"])
    assert funnel["reached"] == [begun, went]
    assert page.evaluate("document.activeElement.textContent") == "list > item (strict, from the entry)"
    # another one beside it; a step of the picture may be added, too
    page.locator("summary", has_text="Steps as a table").click()
    page.get_by_role("button", name="Choose item, place 2").press("Enter")
    page.get_by_role("button", name="Add it to the funnel").click()
    build(page, "cart add")
    assert reached(page, "item > cart add (loose)") == told(shop, funnel="item > cart add")["funnels"][0]["reached"]
    assert page.url.count("funnel=") == 2
    page.get_by_role("button", name="Remove the funnel list > item (strict, from the entry)").click()
    settled(page)
    expect(page.locator(".funnel")).to_have_count(1)


def test_the_usual_funnels_and_their_segments(opened: Opened, shop: Service) -> None:
    page, found = opened.show("journeys"), told(shop)
    settled(page)
    assert [one["mode"] for one in found["funnels"]] == ["loose", "strict"]
    for dimension in ("device", "channel", "campaign", "visit", "entry"):
        page.get_by_role("group", name="By", exact=True).get_by_role("button", name=dimension, exact=True).click()
        for funnel in found["funnels"]:
            title = f"{' > '.join(funnel['steps'])} ({funnel['mode']})"
            stages = rows(page, f"Steps of {title}")
            assert [row[1] for row in stages] == funnel["reached"]
            assert [row[3] for row in stages[:-1]] == funnel["ended_there"]
            assert len(stages[0]) == (5 if any(one != 0 for one in funnel["undecided"]) else 4)
            assert [row[4] for row in stages if len(row) > 4] in ([], funnel["undecided"])
            segments = rows(page, f"{title} by {dimension}")
            assert segments[0][1:-1] == funnel["reached"]
            assert {row[0]: row[1:-1] for row in segments[1:]} == funnel["segments"][dimension]
    # some of these numbers are of too few visitors to be told
    hidden = [one for of in found["funnels"][1]["segments"].values() for line in of.values() for one in line]
    assert None in hidden and page.locator(".untold").count() > 0
    assert any(count for count in found["funnels"][0]["undecided"])


def test_days_and_steps_that_are_left_out(opened: Opened, shop: Service) -> None:
    whole = told(shop)
    page = opened.show("journeys")
    settled(page)
    since, until = whole["from_day"][:8] + "04", whole["from_day"][:8] + "10"
    page.get_by_label("Sessions from (UTC)").fill(since)
    page.get_by_label("to", exact=True).fill(until)
    settled(page)
    begin, end = page.evaluate("days => days.map((day) => Date.parse(day))", [since, until])
    found = told(shop, since_ms=begin, until_ms=end + 86_400_000)
    assert opened.value("[data-tile=sessions] [data-value]") == found["sessions"]
    assert 0 < found["sessions"] < whole["sessions"]
    page.get_by_role("button", name="All days").click()
    settled(page)
    page.locator("summary", has_text="Leave out steps").click()
    page.get_by_role("group", name="Leave out steps").get_by_role("button", name="list", exact=True).click()
    settled(page)
    without = told(shop, without="list")["forward"]
    assert moves(page) == lines_of(without, 4) != lines_of(whole["forward"], 4)
    # of those who went to and fro for long, nothing is known but that they went on
    assert "not kept" in {one["step"] for one in without["steps"]}
    assert page.get_by_text("only the first 60 steps of a session are kept in order").count() > 0


def test_what_is_seen_can_be_linked(opened: Opened, page_at: Open, shop: Service) -> None:
    page = opened.show("journeys?way=backward&goal=cart+add&moves=5&funnel=%5Eitem+>>+cart+add&by=channel")
    settled(page)
    first = page.locator(".journeys table, .journeys .note").all_text_contents()
    again = page_at(WIDE, "dark", "en", shop).show(page.url.partition("#")[2])
    settled(again)
    assert again.locator(".journeys table, .journeys .note").all_text_contents() == first
    # and one that nobody can have asked for is none
    odd = page_at(WIDE, "dark", "en", shop).show("journeys?begin=nowhere&moves=99&funnel=item+>>+item&since=yesterday")
    settled(odd)
    assert moves(odd) == lines_of(told(shop)["forward"], 4)


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_it_fits_and_is_drawn(page_at: Open, shop: Service, width: int, language: str, theme: str) -> None:
    opened = page_at(width, theme, language, shop)
    page = opened.show("journeys?without=other")
    settled(page)
    page.wait_for_function(
        "() => [...document.querySelectorAll('.drawing:not([hidden]) .chart')].every((one) => one.dataset.drawn)"
    )
    charts = page.locator(".drawing:not([hidden]) [role=img]")
    assert charts.count() >= 8
    labels = charts.evaluate_all("all => all.map((one) => one.getAttribute('aria-label'))")
    assert all(label and "{" not in label for label in labels)
    text = page.locator("#view").inner_text()
    assert "{" not in text and "undefined" not in text and "NaN" not in text
    assert ("Where sessions end" in text) == (language == "en")
    opened.fits()


@pytest.mark.parametrize(("language", "said"), [("en", "Nothing to tell yet."), ("de", "Noch ist nichts zu erzählen.")])
def test_without_sessions(page_at: Open, empty_service: Service, language: str, said: str) -> None:
    opened = page_at(NARROW, "light", language, empty_service)
    page = opened.show("journeys")
    expect(page.locator(".empty strong")).to_have_text(said)
    assert page.locator(".journeys .tile, .drawing").count() == 0
    opened.fits()


def test_a_question_that_takes_too_long_is_told_and_can_be_asked_again(page_at: Open, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    slow = Service(tmp_path, "models.uri=", "insight.timeout_seconds=0.01").start()
    try:
        opened = page_at(WIDE, "light", "en", slow)
        opened.allowed.append("503")
        page = opened.show("journeys")
        expect(page.get_by_role("alert")).to_contain_text("counting took longer than 0.01 s; ask for fewer days")
        asked = len([url for url in opened.asked if PATH in url])
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("alert")).to_contain_text("counting took longer")
        assert len([url for url in opened.asked if PATH in url]) > asked
    finally:
        slow.stop()


def test_everything_has_a_name_in_both_languages(opened: Opened) -> None:
    page = opened.show("journeys")
    texts = page.evaluate("import('/console/static/journeys_texts.js').then(({ texts }) => texts)")
    marks = {name: [sorted(_marks(texts[language][name])) for language in ("en", "de")] for name in texts["en"]}
    assert texts["en"].keys() == texts["de"].keys()
    assert [name for name, (english, german) in marks.items() if english != german] == []
    kinds = [kind for kind in PAGE_KINDS if kind not in ("none", "confirmation")]
    named = {
        "step": (*STEPS[1:], *kinds, "end", "not kept", "rare"),
        "device": (*DEVICES, "rare"),
        "channel": (*CHANNELS, "rare"),
        "campaign": ("none", "some", "rare"),
        "visit": (*VISITS, *SINCE, "rare"),
        "trait": (*_IN_ITS_COURSE, "events", "kinds of steps"),
    }
    wanted = [f"{kind}.{value}" for kind, values in named.items() for value in values]
    assert [name for name in wanted if name not in texts["en"]] == []
    # English keeps the API's own words
    assert [name for name in wanted if texts["en"][name] != name.partition(".")[2]] == []


def _marks(text: str) -> list[str]:
    return [part.partition("}")[0] for part in text.split("{")[1:]]
