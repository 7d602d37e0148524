"""The interactive page: whole, in one file, nothing loaded from anywhere, and it draws in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.training.slices import SMALL, fitted, made_up
from training.findings import Findings, find
from training.heads import heads_of
from training.pages import number, report_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECTIONS = [
    "By session age", "Do the scores hold?", "Telling yes from no", "Lift", "How early the score tells",
    "Score by session age", "Segments", "What the score is made of", "Reasons",
]  # fmt: skip


class Outline(HTMLParser):
    """Headings, table cells, and whatever a browser would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.cells: list[str] = []
        self.loaded: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.loaded += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        kept = {"h1": self.headings, "h2": self.headings, "td": self.cells, "script": self.scripts}
        if self._inside in kept:
            kept[self._inside].append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


@pytest.fixture(scope="module")
def conversion() -> Findings:
    return fitted("conversion")[2]


def test_a_page_holds_every_section_and_every_number(conversion: Findings) -> None:
    page = report_page(conversion)
    outline = Outline(page)
    assert outline.headings == ["conversion", *SECTIONS]
    line = conversion.table.set_index(["age", "model"]).loc[("prefix_1", "lotse")]
    assert f"{number(line['auc'])} [{number(line['auc_low'])}, {number(line['auc_high'])}]" in outline.cells
    assert "my forest" in outline.cells and "after 30 s" in outline.cells
    for one in conversion.explanation.examples:
        assert all(reason.text in page.replace("&#x27;", "'") for reason in one.reasons)
    assert "nan" not in {cell.lower() for cell in outline.cells}


def test_a_page_loads_nothing_and_carries_plotly_once(conversion: Findings) -> None:
    page = report_page(conversion)
    outline = Outline(page)
    assert outline.loaded == []
    assert sum("plotly.js v" in script for script in outline.scripts) == 1
    assert len(page) < 8_000_000
    ours = "".join(script for script in outline.scripts if "plotly.js v" not in script)
    assert not re.search(r"https?://", ours)


def test_an_amount_has_a_page_without_roc_and_an_exit_none_of_earliness() -> None:
    value = Outline(report_page(fitted("value")[2]))
    assert value.headings == ["value", *(name for name in SECTIONS if name != "Telling yes from no")]
    page = report_page(fitted("exit")[2])
    assert "The answer changes within sessions" in page


def test_a_test_of_almost_nothing_still_has_a_page(conversion: Findings) -> None:
    model = fitted("conversion", 300)[0]
    part, truth = made_up(6, seed=9)
    found = find(heads_of(SMALL)["conversion"], model, part, {"lotse": truth}, SMALL.evaluation)
    outline = Outline(report_page(found))
    assert outline.headings == ["conversion", *SECTIONS]
    assert "–" in outline.cells


def test_names_of_a_users_own_cannot_break_the_page() -> None:
    part, truth = made_up(300)
    scores = {"lotse": truth, "</script><script>alert(1)": truth / 2}
    found = find(heads_of(SMALL)["conversion"], fitted("conversion", 300)[0], part, scores, SMALL.evaluation)
    page = report_page(found)
    assert "<script>alert(1)" not in page
    assert Outline(page).headings == ["conversion", *SECTIONS]


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.slow
def test_a_browser_draws_every_figure_without_a_network(conversion: Findings, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(report_page(conversion))
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND",
        "--virtual-time-budget=8000", "--window-size=1280,4000", f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    drawn = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    body = drawn[drawn.rindex("</head>") :]
    figures = body.count("plotly-graph-div")
    assert figures == 12
    assert len(re.findall(r'<svg class="main-svg"[^>]*>', body)) >= figures
