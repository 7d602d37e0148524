"""The view "Experiments": it shows what the API says, and changes nothing that a person did not agree to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from serving.experiments.history import merged
from serving.keys import KeyFile
from tests.console.pages import NARROW, WIDE, Opened
from tests.serving.test_learning_live import ARMS, PURCHASE, RULE, Crowd
from tests.workspace import Service, packed, wait_until, workspace

Open = Callable[..., Opened]
SETTLED = 0.02
REVENUE = {"name": "revenue", "kind": "revenue", "column": "revenue"}
EDGES = [0.02, 0.2]


def flag(key: str, *arms: Any) -> dict[str, Any]:
    return {"defaultValue": "none", "rules": [{**RULE, "key": key, "variations": list(arms)}]}


CONTENT: dict[str, Any] = {
    "features": {
        "help": flag("help", *ARMS), "price": flag("price", *ARMS), "advice": flag("advice", "none", "short", "long"),
        "old": flag("old", *ARMS), "idea": flag("idea", *ARMS),
    },
    "experiments": {
        "help": {
            "name": "Help for those who hesitate", "hypothesis": "Who is offered help buys more often.",
            "arms": ARMS, "goals": [*PURCHASE, REVENUE], "holdback": 0.2, "minimum_share": 0.1,
            "allocation": {"name": "thompson", "settle_minutes": SETTLED}, "planned_units": 500,
        },
        "price": {
            "name": "Price tag", "arms": ARMS, "planned_units": 500,
            "allocation": {"name": "fixed", "settle_minutes": SETTLED},
            "goals": [*PURCHASE, REVENUE], "guardrails": [{"goal": "revenue", "worst": -0.1}],
        },
        "advice": {
            "arms": ["none", "short", "long"], "goals": PURCHASE, "holdback": 0.1, "shares": [0.5, 0.25, 0.25],
            "allocation": {"name": "contextual", "score": "conversion", "edges": EDGES, "settle_minutes": SETTLED},
        },
        "old": {"name": "An old one", "status": "stopped", "winner": "banner", "arms": ARMS, "goals": PURCHASE},
        "idea": {"name": "An idea", "status": "draft", "arms": ARMS, "goals": PURCHASE},
    },
}  # fmt: skip
QUICK = ("store.closed_seconds=0.2", "experiments.learn_seconds=0.2", "experiments.table_minutes=0.04")


def begun(folder: Path, content: dict[str, Any], *overrides: str) -> Service:
    """A service that learns quickly, with a configuration."""
    folder = workspace(folder)
    (folder / "configs" / "experiments.json").write_text(json.dumps(content))
    return Service(folder, *QUICK, *overrides).start()


@pytest.fixture(scope="module")
def crowd(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """A service that has learned of a crowd whose members bought, or did not; not to be changed by a test."""
    service = begun(tmp_path_factory.mktemp("crowd") / "work", CONTENT, *packed(trained), "server.workers=2")
    try:
        found = Crowd(service)
        for _ in range(2):
            found.come()
        wait_until(lambda: bool(told(service, "price").get("stopped")), 60)
        wait_until(lambda: not moved(service), 60)
        yield found
    finally:
        service.stop()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of which experiments are changed; it has two workers, of which one hears of a push from the other."""
    content = json.loads(json.dumps(CONTENT))
    content["features"] |= {key: flag(key, *ARMS) for key in ("first", "second", "third")}
    content["experiments"] |= {key: {"arms": ARMS, "goals": PURCHASE} for key in ("first", "second", "third")}
    service = begun(tmp_path_factory.mktemp("bench") / "work", content, "models.uri=", "server.workers=2")
    yield service
    service.stop()


def told(service: Service, key: str) -> dict[str, Any]:
    """What the API says of an experiment."""
    answer = service.http.get("/v1/experiments/state", params={"history": key})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["experiments"][key]
    return found


def moved(service: Service) -> bool:
    """Whether results still change: sessions are counted, or settle."""
    before = {key: told(service, key).get("results") for key in ("help", "price", "advice")}
    counted = told(service, "help").get("counted_ms", 0)
    wait_until(lambda: told(service, "help").get("counted_ms", 0) > counted + 4_000)
    after = {key: told(service, key).get("results") for key in before}
    return before != after or not all(one["units"] for one in after["help"] or [{"units": None}])


def configuration(service: Service) -> dict[str, Any]:
    """As the file says, which a worker may hear of a moment later."""
    found: dict[str, Any] = json.loads((service.folder / "configs" / "experiments.json").read_text())
    return found


def push(service: Service, patch: dict[str, Any]) -> None:
    """As somebody else does meanwhile."""
    answer = service.http.patch("/v1/experiments", json=patch)
    assert answer.status_code == 200, answer.text


def rows(page: Page, panel: str) -> list[list[float | None]]:
    """The numbers of each line of a table, as they were told."""
    found: list[list[str]] = page.locator(f"{panel} tbody tr").evaluate_all(
        "all => all.map((row) => [...row.querySelectorAll('[data-value]')].map((one) => one.dataset.value))"
    )
    return [[None if value == "null" else float(value) for value in row] for row in found]


def known(*values: float | None) -> list[float | None]:
    return [None if value is None else pytest.approx(value, abs=1e-12) for value in values]


# ---- what is shown ----


def test_all_experiments_are_listed_by_where_they_stand(page_at: Open, crowd: Crowd) -> None:
    opened = page_at(WIDE, "dark", "en", crowd.service)
    page = opened.show("experiments")
    sections = page.locator(".view-experiments section > h3").all_inner_texts()
    assert sections == ["Running", "Drafts", "With a winner"]
    assert set(page.locator("[data-experiment]").evaluate_all("all => all.map((one) => one.dataset.experiment)")) == {
        *CONTENT["experiments"]
    }
    for key in ("help", "price", "advice"):
        card, state = f"[data-experiment={key}]", told(crowd.service, key)
        assert opened.value(f"{card} dl [data-value]") == sum(count or 0 for count in state["units"].values())
        lifts = [one["lift"] for one in state["results"] if one["goal"] == "purchase"]
        assert opened.values(f"{card} .experiments-lines [data-value]") == known(*lifts)
    assert "broken" in opened.text("[data-experiment=price]") and "An old one" in opened.text("[data-experiment=old]")
    page.get_by_role("button", name="Drafts (1)").click()
    expect(page.locator("[data-experiment]")).to_have_count(1)
    assert page.url.endswith("#experiments?show=draft")
    page.get_by_role("link", name="An idea").click()
    expect(page.get_by_role("heading", name="An idea")).to_be_focused()


@pytest.mark.parametrize("key", ["help", "price", "advice"])
def test_numbers_of_an_experiment_are_the_apis(page_at: Open, crowd: Crowd, key: str) -> None:
    opened = page_at(WIDE, "light", "en", crowd.service)
    page = opened.show(f"experiments?experiment={key}")
    state = told(crowd.service, key)
    definition, results = state["definition"], state["results"]
    page.wait_for_selector("#experiments-allocation [data-drawn]")
    page.wait_for_selector("#experiments-results [data-drawn]")
    expected = []
    for one in results:
        counts = [] if one["units"] is None else [one["units"]]
        bounds = [] if one["low"] is None or one["high"] is None else [one["low"], one["high"]]
        means = [one["mean"], one["control_mean"], one["lift"]]
        expected.append(known(*counts, *means, *bounds, one["adjusted_p"]))
    assert rows(page, "#experiments-results") == expected and len(expected) == len(definition["goals"]) * (
        len(definition["arms"]) - 1
    )
    assert page.locator("#experiments-results tbody tr td:last-child").all_inner_texts() == [
        {"few": "too few units"}.get(one["verdict"], one["verdict"]) for one in results
    ]
    assert opened.value(".experiments-tiles [data-value]") == sum(count or 0 for count in state["units"].values())
    shares = [row[0] for row in rows(page, "#experiments-arms")]
    assert shares == known(*definition["shares"])
    assert [row[-1] for row in rows(page, "#experiments-arms")] == known(*state["units"].values())
    assert opened.values("#experiments-ratio [data-value]") == known(state["sample_ratio"]["p"])
    assert "ok: as many units came into each arm" in opened.text("#experiments-ratio")
    assert rows(page, "#experiments-guardrails") == [
        known(one["worst"], one["lift"], one["low"], one["high"]) for one in state["guardrails"]
    ]
    # tables go on being made; those that are shown are among those that are told
    page.locator("#experiments-allocation-numbers summary").click()
    points = {one["from_ms"]: one["bins"][0] for one in state["history"]["points"]}
    shown = rows(page, "#experiments-allocation-numbers")
    assert shown and {row[0]: known(*row[1:]) for row in shown} == {row[0]: points[int(row[0] or 0)] for row in shown}
    assert "Stacked areas of the shares" in (
        page.locator("#experiments-allocation .chart").get_attribute("aria-label") or ""
    )


def test_a_stop_by_a_guardrail_is_told_with_its_reason(page_at: Open, crowd: Crowd) -> None:
    opened = page_at(WIDE, "dark", "en", crowd.service)
    page = opened.show("experiments?experiment=price")
    (stopped,) = told(crowd.service, "price")["stopped"]
    row = page.locator("#experiments-allocation tr", has_text="guardrail revenue")
    expect(row).to_contain_text("banner")
    assert row.locator("[data-value]").get_attribute("data-value") == str(stopped["at_ms"])
    assert "stopped (guardrail)" in opened.text("#experiments-arms")
    assert "broken: surely worse than allowed" in opened.text("#experiments-guardrails")
    assert rows(page, "#experiments-arms")[1][1] == 0  # its share now


def test_shares_by_score_are_shown_bin_by_bin(page_at: Open, crowd: Crowd) -> None:
    opened = page_at(WIDE, "light", "de", crowd.service)
    page = opened.show("experiments?experiment=advice")
    choice = page.get_by_label("Einheiten mit Score")
    assert choice.locator("option").all_inner_texts() == [
        "conversion unter 0,02", "conversion 0,02 bis 0,20", "conversion ab 0,20", "ohne Score",
    ]  # fmt: skip
    choice.focus()
    choice.select_option(label="conversion ab 0,20")
    expect(page.get_by_label("Einheiten mit Score")).to_be_focused()
    page.locator("#experiments-allocation-numbers summary").click()
    points = {one["from_ms"]: one["bins"][2] for one in told(crowd.service, "advice")["history"]["points"]}
    for row in rows(page, "#experiments-allocation-numbers"):
        assert row[1:] == known(*points[int(row[0] or 0)])


@pytest.mark.parametrize(
    ("width", "theme", "language"), [(WIDE, "dark", "de"), (NARROW, "light", "en"), (NARROW, "dark", "de")]
)
@pytest.mark.parametrize(
    "place", ["", "?experiment=help", "?experiment=price", "?define=help", "?define=", "?versions=1"]
)
def test_it_fits(page_at: Open, crowd: Crowd, width: int, theme: str, language: str, place: str) -> None:
    opened = page_at(width, theme, language, crowd.service)
    page = opened.show(f"experiments{place}")
    if place.startswith("?experiment"):
        page.wait_for_selector("#experiments-allocation [data-drawn]")
    opened.fits()


def test_a_service_without_experiments_says_so(page_at: Open, tmp_path: Path) -> None:
    service = Service(workspace(tmp_path / "work"), "models.uri=", "experiments.file=configs/none.json").start()
    try:
        opened = page_at(NARROW, "light", "en", service)
        page = opened.show("experiments")
        expect(page.get_by_text("There is no experiment yet")).to_be_visible()
        page.get_by_role("link", name="Versions").click()
        expect(page.get_by_text("Nothing was pushed yet")).to_be_visible()
        page.goto(f"http://127.0.0.1:{service.port}/console#experiments?experiment=nobody")
        expect(page.get_by_text("There is no experiment of this name")).to_be_visible()
        opened.fits()
    finally:
        service.stop()


def test_drafts_have_no_numbers_yet(page_at: Open, empty_service: Service) -> None:
    opened = page_at(WIDE, "dark", "en", empty_service)
    page = opened.show("experiments?experiment=leaving_soon")
    assert "bounce > 0.7 and page_views < 2" in opened.text("#experiments-whom")
    assert "Nothing has been counted yet" in opened.text("#experiments-results")
    assert "Nothing was assigned" in opened.text("#experiments-allocation")
    expect(page.get_by_role("button", name="Start")).to_be_enabled()


# ---- what is changed ----


def fill(page: Page, name: str, value: str) -> None:
    page.locator(f"[data-field={name}]").first.fill(value)


def line(page: Page, of: str, number: int) -> Locator:
    return page.locator(f".experiments-rows[data-of={of}] > li").nth(number)


def agree(page: Page) -> None:
    """To what the dialog says, once the service has tried it."""
    expect(page.locator("#experiments-go")).to_be_enabled()
    page.locator("#experiments-go").click()


def test_from_a_definition_to_a_result(page_at: Open, bench: Service) -> None:
    opened = page_at(WIDE, "dark", "en", bench)
    opened.allowed.append("status of 422")
    page = opened.show("experiments")
    page.get_by_role("link", name="Define an experiment").click()
    fill(page, "key", "chat_offer")
    fill(page, "name", "An offer to chat")
    fill(page, "hypothesis", "Who can ask buys.")
    fill(page, "feature", "chat")
    fill(page, "default", "none")
    for number, (arm, value) in enumerate((("none", "none"), ("chat", "chat"))):
        line(page, "arms", number).locator("[data-field=arms]").fill(arm)
        line(page, "arms", number).locator("[data-field=variations]").fill(value)
    fill(page, "options", f'{{"settle_minutes": {SETTLED}}}')
    condition = line(page, "condition", 0)
    condition.locator("[data-field=condition]").fill("bouncy")
    condition.locator("[data-field=asked]").fill("0.01")
    goal = line(page, "goals", 0).locator("[data-field=column]")
    goal.fill("purchasez")
    # what the service refuses stands where it belongs
    page.get_by_role("button", name="Check").click()
    wrong = page.locator("[aria-invalid=true]")
    expect(wrong).to_have_count(1)
    expect(wrong).to_be_focused()
    assert wrong.input_value() == "bouncy"
    expect(condition).to_contain_text("unknown attribute 'bouncy'")
    condition.locator("[data-field=condition]").fill("bounce")
    page.get_by_role("button", name="Check").click()
    expect(line(page, "goals", 0)).to_contain_text("is not what a session is handed on with")
    expect(page.locator("#experiments-checked")).to_contain_text("$.experiments.chat_offer.goals[0].column")
    goal.fill("purchases")
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_text("The service can run this.")).to_be_visible()
    expect(page.locator("[aria-invalid=true]")).to_have_count(0)
    assert "chat_offer" not in configuration(bench)["experiments"]
    page.locator("#experiments-sent summary").click()
    assert '"status": "draft"' in opened.text("#experiments-sent") and "If-Match" in opened.text("#experiments-sent")
    # a draft, then started
    page.get_by_role("button", name="Save as a draft").click()
    expect(page.get_by_role("dialog")).to_contain_text("chat_offer")
    agree(page)
    expect(page.get_by_role("heading", name="An offer to chat")).to_be_focused()
    assert configuration(bench)["experiments"]["chat_offer"]["status"] == "draft"
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("dialog")).to_contain_text("none 50.0%, chat 50.0%")
    agree(page)
    expect(page.locator(".experiments-title")).to_contain_text("Running")
    wait_until(lambda: all(told(bench, "chat_offer")["status"] == "running" for _ in range(8)))
    # visitors come, and those who can ask buy
    crowd = Crowd(bench)
    visitors = [f"guest {number}" for number in range(400)]
    answers = crowd.send(visitors, "first", "page_view")
    arms = {one: answer["flags"]["chat"]["variant"] for one, answer in zip(visitors, answers, strict=True)}
    assert set(arms.values()) == {"none", "chat"}
    rates = {"none": 0.1, "chat": 0.6}
    crowd.send([one for one in visitors if crowd.random.random() < rates[arms[one]]], "first", "purchase", value=10)
    crowd.send(visitors, "second", "page_view")
    wait_until(lambda: told(bench, "chat_offer").get("results", [{}])[0].get("verdict") == "better", 60)
    expect(page.locator("#experiments-results")).to_contain_text("better", timeout=20_000)  # the page looks by itself
    state = told(bench, "chat_offer")
    (result,) = state["results"]
    assert [row[-1] for row in rows(page, "#experiments-arms")] == known(*state["units"].values())
    assert rows(page, "#experiments-results")[0][3] == pytest.approx(result["lift"])
    # and it is stopped
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("dialog")).to_contain_text("Nobody new is in it")
    agree(page)
    expect(page.locator(".experiments-title")).to_contain_text("Stopped")
    wait_until(lambda: all(told(bench, "chat_offer")["status"] == "stopped" for _ in range(8)))
    (late,) = crowd.send(["late guest"], "first", "page_view")
    assert late["flags"]["chat"]["value"] == "none" and "variant" not in late["flags"]["chat"]
    expect(page.locator("#experiments-results")).to_contain_text("better")


def test_nothing_happens_without_a_persons_word(page_at: Open, bench: Service) -> None:
    page = page_at(WIDE, "light", "en", bench).show("experiments?experiment=first")
    before = configuration(bench)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    expect(page.get_by_role("dialog")).to_contain_text("changed: experiments first")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    assert configuration(bench) == before


def test_an_arm_is_killed_a_winner_named_and_all_of_it_taken_back(page_at: Open, bench: Service) -> None:
    opened = page_at(NARROW, "dark", "en", bench)
    page = opened.show("experiments?experiment=first")
    before = bench.http.get("/v1/experiments").json()["version"]
    page.get_by_role("button", name="Kill an arm").click()
    expect(page.get_by_role("dialog")).to_contain_text("gets what control gets")
    opened.fits()
    agree(page)
    expect(page.locator("#experiments-arms")).to_contain_text("killed")
    assert configuration(bench)["experiments"]["first"]["killed"] == ["banner"]
    expect(page.get_by_role("button", name="Kill an arm")).to_have_count(0)  # none is left
    page.get_by_role("button", name="Name a winner").click()
    page.get_by_label("Winner", exact=True).select_option("control")
    agree(page)
    expect(page.locator(".experiments-title")).to_contain_text("With a winner")
    ended = configuration(bench)["experiments"]["first"]
    assert (ended["status"], ended["winner"]) == ("stopped", "control")
    page.get_by_role("link", name="All experiments").click()
    page.get_by_role("link", name="Versions").click()
    expect(page.get_by_text("runs now")).to_be_visible()
    page.get_by_role("button", name=f"Roll back to version {before}?").click()
    expect(page.get_by_role("dialog")).to_contain_text("first")
    agree(page)
    wait_until(lambda: bench.http.get("/v1/experiments").json()["version"] == before)
    assert "killed" not in configuration(bench)["experiments"]["first"]


def test_somebody_elses_push_is_not_overwritten(page_at: Open, bench: Service) -> None:
    opened = page_at(WIDE, "dark", "en", bench)
    opened.allowed.append("status of 412")
    page = opened.show("experiments?experiment=second")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#experiments-go")).to_be_enabled()
    asked = {path: bench.http.get(path).text for path in ("/v1/experiments", "/v1/experiments/state?history=second")}
    push(bench, {"experiments": {"second": {"name": "By somebody else"}}})

    def behind(route: Route) -> None:
        """The worker that answers first has not heard of the push yet."""
        path = urlsplit(route.request.url)._replace(scheme="", netloc="").geturl()
        if route.request.method == "GET" and path in asked:
            route.fulfill(body=asked.pop(path), content_type="application/json")
        else:
            route.fallback()

    page.route("**/v1/experiments**", behind)
    page.locator("#experiments-go").click()
    expect(page.get_by_role("dialog")).to_contain_text("Somebody else has changed the configuration meanwhile")
    assert configuration(bench)["experiments"]["second"].get("status", "running") == "running"
    assert not asked
    agree(page)
    expect(page.get_by_role("heading", name="By somebody else")).to_be_visible()
    assert configuration(bench)["experiments"]["second"]["status"] == "stopped"


def test_a_form_keeps_what_was_typed_when_somebody_else_pushes(page_at: Open, bench: Service) -> None:
    opened = page_at(WIDE, "light", "en", bench)
    opened.allowed.append("status of 412")
    page = opened.show("experiments?define=idea")
    fill(page, "hypothesis", "It could be so.")
    push(bench, {"features": {"idea": {"defaultValue": "nothing"}}})
    page.get_by_role("button", name="Save as a draft").click()
    expect(page.locator("#experiments-checked")).to_contain_text("Somebody else has changed")
    page.get_by_role("button", name="Save as a draft").click()
    agree(page)
    expect(page.get_by_text("It could be so.")).to_be_visible()
    assert configuration(bench)["experiments"]["idea"]["hypothesis"] == "It could be so."


def test_what_runs_changes_with_another_phase_only(page_at: Open, bench: Service) -> None:
    opened = page_at(WIDE, "dark", "en", bench)
    opened.allowed.append("status of 422")
    page = opened.show("experiments?define=third")
    line(page, "arms", 0).locator("[data-field=shares]").fill("80")
    line(page, "arms", 1).locator("[data-field=shares]").fill("30")
    page.get_by_role("button", name="Save the changes").click()
    expect(line(page, "arms", 0)).to_contain_text("add up to 1, not to 1.1")
    line(page, "arms", 1).locator("[data-field=shares]").fill("20")
    page.get_by_role("button", name="Save the changes").click()
    expect(page.locator("[data-of=phase]")).to_contain_text("changed since units were assigned: shares")
    fill(page, "phase", "2")
    page.get_by_role("button", name="Save the changes").click()
    agree(page)
    expect(page.locator("#experiments-arms")).to_contain_text("80.0%")
    third = configuration(bench)["experiments"]["third"]
    assert third == {"arms": ARMS, "goals": PURCHASE_AS_SAVED, "shares": [0.8, 0.2], "phase": 2, "status": "running"}


PURCHASE_AS_SAVED = [{"name": "purchase", "kind": "binary", "column": "purchases", "primary": True}]


def test_a_form_that_is_saved_unchanged_changes_nothing(page_at: Open, crowd: Crowd) -> None:
    for key in ("help", "advice"):
        page = page_at(WIDE, "dark", "de", crowd.service).show(f"experiments?define={key}")
        page.get_by_role("button", name="Prüfen").click()
        checked = page.locator("#experiments-checked")
        expect(checked).to_contain_text("experiments")
        sent = page.locator("#experiments-sent code").text_content() or ""
        patch = json.loads(sent.split("\n\n", 1)[1])
        (changed,) = patch["experiments"].values()
        assert changed.keys() <= {"goals", "status"} and "features" not in patch  # what stood there by default


def test_a_key_that_is_revoked_leaves_the_page_read_only(page_at: Open, tmp_path: Path) -> None:
    folder = workspace(tmp_path / "work")
    (folder / "configs" / "experiments.json").write_text(json.dumps(CONTENT))
    keys = KeyFile(folder / "lotse-data")
    key, secret = keys.create("secret", "console")
    keys.create("secret", "another")  # so that keys are needed afterwards, too
    service = Service(folder, "models.uri=").start()
    try:
        opened = page_at(WIDE, "dark", "en", service)
        opened.allowed.append("status of 401")
        page = opened.page
        page.goto(f"http://127.0.0.1:{service.port}/console#experiments?experiment=help")
        page.get_by_label("Secret key", exact=True).fill(secret)
        page.get_by_role("button", name="Use this key").click()
        expect(page.get_by_role("button", name="Stop")).to_be_enabled()
        keys.revoke(key.id)
        wait_until(
            lambda: (
                service.http.get("/v1/experiments", headers={"Authorization": f"Bearer {secret}"}).status_code == 401
            )
        )
        page.get_by_role("button", name="Stop").click()
        page.get_by_role("dialog").filter(has_text="A secret key is needed").get_by_role(
            "button", name="Cancel"
        ).click()
        expect(page.get_by_role("dialog")).to_contain_text("This key may not change anything")
        expect(page.locator("#experiments-go")).to_be_disabled()
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_text("Nothing can be changed here")).to_be_visible()
        expect(page.get_by_role("button", name="Stop")).to_have_count(0)
        assert configuration(service) == CONTENT
    finally:
        service.stop()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {"a": {"b": 1}}),
        ({"a": {"b": 1, "c": [1, 2]}, "d": 0}, {"a": {"c": [2]}}),
        ({"a": [{"b": 1}]}, {"a": [{"b": 1}, {"c": 2}]}),
        ({"a": 1, "b": {"c": 2}}, {"b": 3, "a": {"d": {"e": []}}}),
        (CONTENT, {**CONTENT, "experiments": {"help": {"arms": ["x", "y"]}}}),
    ],
)
def test_the_patch_of_the_page_is_what_the_service_applies(
    page_at: Open, bench: Service, old: dict[str, Any], new: dict[str, Any]
) -> None:
    page = page_at(WIDE, "dark", "en", bench).show("experiments")
    patch = page.evaluate(
        "async ([old, next]) => (await import('/console/static/experiments_data.js')).patchBetween(old, next)",
        [old, new],
    )
    assert merged(old, patch) == new
    same = page.evaluate(
        "async (one) => (await import('/console/static/experiments_data.js')).patchBetween(one, one) === undefined", new
    )
    assert same
