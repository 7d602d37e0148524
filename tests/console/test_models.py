"""Model health in Chromium: the page shows what the API says, of models that were trained and watched for real."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.console.conftest import serve
from tests.console.pages import NARROW, WIDE, Opened
from tests.watched import HEADS
from tests.workspace import Service, wait_until

pytestmark = pytest.mark.slow

# Sections of a head, in their order.
SECTIONS = ("calibration", "lift", "drift", "over_time", "comparison", "versions", "reasons", "what_if")
LOOKS = ((WIDE, "dark", "en"), (NARROW, "light", "de"), (NARROW, "dark", "en"), (WIDE, "light", "de"))

_DRAWN = """() => {
  const charts = [...document.querySelectorAll(".view-models .chart")];
  return charts.length > 5 && charts.every((one) => one.dataset.drawn);
}"""


@pytest.fixture(scope="module")
def models_service(watched: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose registry holds those models, and whose log their sessions."""
    folder = tmp_path_factory.mktemp("models") / "work"
    shutil.copytree(watched / "lotse-data" / "closed", folder / "lotse-data" / "closed")
    # one answer for all tests: to read it again takes seconds
    running = serve(folder, None, f"models.uri=sqlite:///{watched}/lotse-data/mlflow.db", "insight.cache_seconds=3600")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def told(models_service: Service) -> dict[str, Any]:
    """What the API says."""
    found: dict[str, Any] = models_service.http.get("/v1/insight/models", timeout=60).json()
    return found


def ready(opened: Opened, view: str) -> Opened:
    """Shown, with every chart drawn."""
    opened.show(view)
    # not by a function of the page's own: its policy allows no code from strings
    wait_until(lambda: opened.page.evaluate(_DRAWN))
    return opened


def rows_of(opened: Opened, caption: str, column: int) -> list[str]:
    """The raw values of a column of the table with that caption."""
    script = """([caption, column]) => [...document.querySelectorAll("table")]
      .find((table) => table.caption.textContent.startsWith(caption))
      .querySelectorAll("tbody tr").values().map((row) => row.cells[column].dataset.value).toArray()"""
    found: list[str] = opened.page.evaluate(script, [caption, column])
    return found


def floats(values: list[str]) -> list[float]:
    return [float(value) for value in values if value != ""]


@pytest.mark.parametrize(("width", "theme", "language"), LOOKS)
def test_every_section_is_there_and_fits(
    models_service: Service, page_at: Callable[..., Opened], width: int, theme: str, language: str
) -> None:
    opened = ready(page_at(width, theme, language, models_service), "models?head=exit")
    sections = opened.page.locator("[data-section]").evaluate_all("all => all.map((one) => one.dataset.section)")
    assert tuple(sections) == SECTIONS
    opened.fits()
    opened.page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    opened.fits()
    # every chart says what it is, and has a table of its numbers in its panel
    for name in SECTIONS:
        panel = opened.page.locator(f'[data-section="{name}"]')
        assert all(panel.locator(".chart").evaluate_all("all => all.map((one) => one.getAttribute('aria-label'))"))
        assert panel.locator("table tbody tr").count() > 0, name


@pytest.mark.parametrize("head", HEADS)
def test_the_tiles_are_the_apis_numbers(
    models_service: Service, told: dict[str, Any], page_at: Callable[..., Opened], head: str
) -> None:
    opened = ready(page_at(WIDE, "dark", "en", models_service), f"models?head={head}")
    one = told["heads"][head]
    assert opened.page.locator('[data-head][aria-pressed="true"]').inner_text() == head
    # a head that has no model is none to look at
    assert opened.page.locator("[data-head]").all_inner_texts() == list(HEADS)
    shown = opened.page.locator('[data-tile="state"] dd').first
    assert shown.inner_text() == one["state"]
    assert opened.value('[data-tile="champion"] [data-value]') == float(one["champion"])
    assert opened.value('[data-tile="ratio"] [data-value]') == one["realised"]["ratio"]
    assert opened.value('[data-tile="calibration"] [data-value]') == one["realised"]["calibration"]
    (events,) = (line for line in one["realised"]["ages"] if line["age"] == "events")
    assert opened.value('[data-tile="lift"] [data-value]') == events["metrics"]["lift_10"]["value"]
    drifted = [feature for feature in one["drift"]["features"] if feature["counts"] and feature["drifted"]]
    assert opened.value('[data-tile="drift"] [data-value]') == len(drifted)
    assert opened.value('[data-tile="sessions"] [data-value]') == one["realised"]["sessions"]


@pytest.mark.parametrize("head", HEADS)
def test_the_tables_are_the_apis_numbers(
    models_service: Service, told: dict[str, Any], page_at: Callable[..., Opened], head: str
) -> None:
    opened = ready(page_at(WIDE, "light", "en", models_service), f"models?head={head}")
    one = told["heads"][head]
    (bins,) = (curve["bins"] for curve in one["test"]["reliability"] if curve["age"] == "all")
    assert floats(rows_of(opened, "Test, all rows", 1)) == [bin_["observed"] for bin_ in bins if not bin_["hidden"]]
    groups = [group for group in one["realised"]["by_score"] if not group["hidden"]]
    assert floats(rows_of(opened, "Live, by score", 2)) == [group["mean_answer"] for group in groups]
    ages = [group for group in one["realised"]["by_age"] if not group["hidden"]]
    assert floats(rows_of(opened, "Live, by session age", 2)) == [group["mean_answer"] for group in ages]
    for name, of in (("test", one["test"]), ("live", one["realised"])):
        lifts = [line["metrics"]["lift_10"]["value"] for line in of["ages"] if not line["hidden"]]
        found = floats(rows_of(opened, f"Lift at 10 %, {name}", 1))
        assert found == [lift for lift in lifts if lift is not None] and len(found) > 3
    psi = [one["drift"]["score"]["psi"], *(feature["psi"] for feature in one["drift"]["features"])]
    assert floats(rows_of(opened, "All features", 1)) == psi
    looks = one["over_time"]["looks"][::-1]
    assert floats(rows_of(opened, "All looks", 0)) == [look["at_ms"] for look in looks]
    assert floats(rows_of(opened, "All looks", 3)) == [look["ratio"] for look in looks]
    (overall,) = (line for line in one["comparison"]["ages"] if line["age"] == "all")
    shown = floats(rows_of(opened, "Over all rows", 3))
    assert shown[0] == overall["metrics"]["log_loss"]["difference"] and len(shown) == 5
    assert (
        opened.page.locator('[data-name="gate"]').get_attribute("data-value")
        == str(one["comparison"]["promoted"]).lower()
    )
    reasons = opened.page.locator(".models-reasons li").all_inner_texts()
    assert reasons == one["comparison"]["reasons"]
    assert rows_of(opened, "Versions, the newest first", 0) == [version["version"] for version in one["versions"]]
    assert rows_of(opened, "What happened", 1) == [event["what"] for event in one["life"][::-1]]
    assert floats(rows_of(opened, "Features by contribution", 1)) == [line["contribution"] for line in one["reasons"]]


def test_another_metric_and_another_head_can_be_chosen(
    models_service: Service, told: dict[str, Any], page_at: Callable[..., Opened]
) -> None:
    opened = ready(page_at(WIDE, "dark", "en", models_service), "models?head=conversion")
    opened.page.locator('[data-section="lift"] select').select_option("ece")
    shown = floats(rows_of(opened, "Calibration error (ECE), live", 1))
    ages = [line for line in told["heads"]["conversion"]["realised"]["ages"] if not line["hidden"]]
    assert shown == [line["metrics"]["ece"]["value"] for line in ages]
    for what in ("calibration", "psi", "lift_10", "drifted_features", "ratio"):
        opened.page.locator('[data-section="over_time"] select').select_option(what)
    opened.page.locator('[data-section="comparison"] select').select_option("auc")
    opened.page.get_by_role("button", name="exit", exact=True).click()
    assert "head=exit" in opened.page.url
    assert opened.value('[data-tile="ratio"] [data-value]') == told["heads"]["exit"]["realised"]["ratio"]


def test_the_threshold_moves_by_keyboard_and_tells_what_it_reaches(
    models_service: Service, told: dict[str, Any], page_at: Callable[..., Opened]
) -> None:
    opened = ready(page_at(WIDE, "dark", "en", models_service), "models?head=exit&of=test&moment=prefix_1")
    (table,) = (one for one in told["heads"]["exit"]["what_if"]["test"]["moments"] if one["moment"] == "prefix_1")
    slider = opened.page.get_by_label("Threshold", exact=True)
    last = len(table["threshold"]) - 1

    def shown(at: int) -> None:
        sessions, answers = table["sessions"][at], table["answers"][at]
        assert opened.value('[data-name="threshold"]') == table["threshold"][at]
        assert opened.value('[data-name="reach"]') == sessions / table["base"]
        assert opened.value('[data-name="precision"]') == answers / sessions
        assert opened.value('[data-name="recall"]') == answers / table["answers"][last]
        assert "reaches" in (slider.get_attribute("aria-valuetext") or "")

    slider.focus()
    slider.press("End")
    shown(0)
    slider.press("ArrowLeft")
    shown(1)
    slider.press("Home")
    shown(last)
    slider.press("ArrowRight")
    shown(last - 1)
    assert f"at={table['threshold'][last - 1]}" in opened.page.url
    # the address leads back to where one was
    again = ready(page_at(WIDE, "dark", "en", models_service), opened.page.url.partition("#")[2])
    assert again.value('[data-name="threshold"]') == table["threshold"][last - 1]
    reached = [sessions / table["base"] for sessions in table["sessions"]]
    assert floats(rows_of(again, "Thresholds, after event 1", 3)) == reached


def test_the_expected_effect_is_what_its_formula_says(
    models_service: Service, told: dict[str, Any], page_at: Callable[..., Opened]
) -> None:
    opened = ready(page_at(NARROW, "light", "en", models_service), "models?head=exit&of=test&moment=prefix_1")
    (table,) = (one for one in told["heads"]["exit"]["what_if"]["test"]["moments"] if one["moment"] == "prefix_1")
    page = opened.page
    typed = page.get_by_label("Sessions a day")
    assert float(typed.input_value()) == round(told["sessions_per_day"]["sessions"])
    slider = page.get_by_label("Threshold", exact=True)
    slider.press("Home")
    at = len(table["threshold"]) - 1
    typed.fill("1000")
    page.get_by_label("Effect in %").fill("-20")
    caught = table["answers"][at] / table["base"]
    assert opened.value('[data-name="effect"]') == pytest.approx(1000 * caught * -0.2)
    page.get_by_label("Effect from %").fill("-30")
    page.get_by_label("Effect to %").fill("-10")
    spread = 0.2 / (2 * 1.96)
    error = 1000 * ((0.2 * table["caught_error"][at]) ** 2 + (caught * spread) ** 2) ** 0.5
    band = page.locator(".models-formula .note").inner_text()
    low, high = (float(number.replace(",", "")) for number in re.findall(r"From (\S+) to (\S+) \(", band)[0])
    assert low == pytest.approx(-200 * caught - 1.96 * error, abs=0.06)
    assert high == pytest.approx(-200 * caught + 1.96 * error, abs=0.06)
    typed.fill("")
    assert page.get_by_text("Give sessions a day and an effect.").is_visible()
    typed.fill("-5")
    assert typed.get_attribute("aria-invalid") == "true"


# What GET /v1/experiments/state tells of an arm that is known, of one that is not yet, and of none.
STATE = {
    "experiments": {
        "help": {
            "results": [
                {"goal": "purchase", "arm": "chat", "verdict": "better", "lift": 0.2, "low": 0.1, "high": 0.3},
                {"goal": "purchase", "arm": "call", "verdict": "few", "lift": None, "low": None, "high": None},
            ]
        },
        "draft": {},
    }
}


def test_effects_are_those_of_experiments_that_have_one(
    empty_service: Service, page_at: Callable[..., Opened]
) -> None:  # fmt: skip
    opened = page_at(WIDE, "dark", "en", empty_service)
    page = opened.show("models")
    script = """async (state) => {
      const { effects, expected, line } = await import("./console/static/models_effect.js");
      const table = { base: 200, threshold: [0.5, 0.1], sessions: [50, 150], answers: [20, 30],
        reach_error: [0.02, 0.03], precision_error: [0.06, 0.03], caught_error: [0.02, 0.03] };
      const [effect] = effects(state);
      const sure = expected(line(table, 0), 1000, { ...effect, value: effect.lift });
      return { found: effects(state), line: line(table, 0), sure };
    }"""
    told = page.evaluate(script, STATE)
    assert [(one["experiment"], one["arm"], one["lift"]) for one in told["found"]] == [("help", "chat", 0.2)]
    assert told["line"]["reach"]["value"] == 0.25 and told["line"]["precision"]["value"] == 0.4
    assert told["line"]["recall"] == pytest.approx(2 / 3) and told["line"]["lift"] == pytest.approx(2)
    assert told["line"]["precision"]["low"] == pytest.approx(0.4 - 1.96 * 0.06)
    # 1,000 sessions a day, 250 of them reached, 100 rightly, a fifth more
    assert (told["sure"]["acted"], told["sure"]["right"]) == (250, 100)
    assert told["sure"]["value"] == pytest.approx(20)
    deviation = 1000 * ((0.2 * 0.02) ** 2 + (0.1 * 0.2 / (2 * 1.96)) ** 2) ** 0.5
    assert told["sure"]["high"] == pytest.approx(20 + 1.96 * deviation)


@pytest.fixture(scope="module")
def old_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose one version was trained by a release that left metrics alone."""
    folder = tmp_path_factory.mktemp("old")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db", f"sqlite:///{folder}/mlflow.db")
    experiment = client.create_experiment("lotse", artifact_location=(folder / "artifacts").as_uri())
    run = client.create_run(experiment, run_name="exit")
    client.log_param(run.info.run_id, "question", "Was this the last event?")
    client.log_metric(run.info.run_id, "auc/events", 0.75)
    client.set_terminated(run.info.run_id)
    client.create_registered_model("lotse-exit")
    client.create_model_version("lotse-exit", f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_registered_model_alias("lotse-exit", "champion", "1")
    running = serve(folder / "work", None, f"models.uri=sqlite:///{folder}/mlflow.db")
    yield running
    running.stop()


@pytest.mark.parametrize(("width", "language"), [(WIDE, "en"), (NARROW, "de")])
def test_a_version_of_an_earlier_release_is_shown_as_far_as_it_goes(
    old_service: Service, page_at: Callable[..., Opened], width: int, language: str
) -> None:
    opened = page_at(width, "dark", language, old_service)
    page = opened.show("models")
    page.wait_for_selector('[data-section="what_if"]')
    assert opened.value('[data-tile="champion"] [data-value]') == 1
    again = {"en": "Train again", "de": "Neu trainiert"}[language]
    for section in ("calibration", "reasons", "what_if"):
        assert again in opened.text(f'[data-section="{section}"]'), section
    assert "0.7500" in opened.text('[data-section="versions"]').replace(",", ".")
    opened.fits()


@pytest.mark.parametrize(
    ("width", "language", "said"), [(WIDE, "en", "no model registry"), (NARROW, "de", "Modellablage")]
)
def test_a_service_without_models_says_so(
    empty_service: Service, page_at: Callable[..., Opened], width: int, language: str, said: str
) -> None:
    opened = page_at(width, "dark", language, empty_service)
    opened.show("models")
    assert said in opened.text(".empty")
    opened.fits()
