"""`lotse report`: one file that loads nothing, whose numbers are those of the JSON, and that draws in a browser."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulation.shop import simulate
from tests.training.test_pages import CHROMIUM, Outline
from tests.workspace import lotse, workspace
from training.journeys_page import page

SECTIONS = [
    "Paths", "Funnels", "Where sessions end", "Time on each kind of page", "Left within 10 s, or stayed over 300 s",
    "Returning visitors", "How it is counted",
]  # fmt: skip
FUNNEL = ("--funnel", "item > cart add > purchase", "--funnel", "^item >> cart add")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = workspace(tmp_path_factory.mktemp("report") / "work")
    simulate(events=40_000, seed=6).events.to_parquet(folder / "shop.parquet", index=False)
    yield folder


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    """What the command prints as JSON."""
    done = lotse(folder, "report", "--source", "lotse", "--events", "shop.parquet", "--json", *FUNNEL)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_the_page_tells_what_the_json_tells(found: dict[str, Any]) -> None:
    outline = Outline(page(found, "shop"))
    assert outline.headings == ["Journeys: shop", *SECTIONS]
    assert outline.loaded == []
    assert sum("plotly.js v" in script for script in outline.scripts) == 1
    told = [
        *(
            move["sessions"]
            for part in (*found["entries"], found["forward"], found["backward"])
            for move in part["moves"]
        ),
        *(count for funnel in found["funnels"] for count in funnel["reached"] if count is not None),
        *(line[key] for line in found["endings"]["steps"] for key in ("sessions", "ended") if line[key] is not None),
        *(line["sessions"] for of in found["returning"].values() for line in of),
    ]
    assert len(told) > 60
    assert {f"{count:,}" for count in told} <= set(outline.cells)
    assert all(trait["name"] in outline.cells for trait in found["cohorts"]["traits"])


def test_the_page_of_nobody_says_so() -> None:
    outline = Outline(page({"least_visitors": 50, "sessions": None}, "shop"))
    assert outline.headings == ["Journeys: shop"] and not outline.cells


def test_the_command_writes_a_page_that_a_browser_draws(folder: Path) -> None:
    done = lotse(folder, "report", "--source", "lotse", "--events", "shop.parquet", "--out", "journeys.html", *FUNNEL)
    assert done.returncode == 0, done.stderr
    assert CHROMIUM, "install chromium: the page is opened in it"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=15000", "--dump-dom"]
    drawn = subprocess.run(
        [*command, f"file://{folder}/journeys.html"], capture_output=True, text=True, timeout=120, check=True
    )
    # bands of the paths, blocks of the funnels, bars of the endings, dots of the differences
    for what in ("sankey-link", "funnellayer", "barlayer", "scatterlayer", "slider-label"):
        assert what in drawn.stdout, what


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give either --source, with --events, or --closed"),
        (("--source", "lotse", "--events", "shop.parquet", "--begin", "nowhere"), "unknown step 'nowhere'"),
        (("--source", "lotse", "--events", "shop.parquet", "--funnel", "item >> item"), "follows itself"),
    ],
)
def test_what_cannot_be_reported_is_told(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    done = lotse(folder, "report", *arguments)
    assert done.returncode == 2 and said in done.stderr, done.stderr
