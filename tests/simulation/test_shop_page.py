"""The demo's shop: what its web server hands out and to whom, and what its pages can say."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import uvicorn

from features.definitions import CATALOGUE
from features.settings import SettingsError
from simulation.keeping import opened
from simulation.shop import CATEGORIES, products
from simulation.shop_page.app import STATIC, client_scripts, shop_app
from simulation.shop_page.board import PRESENT_SECONDS, Board
from simulation.shop_page.catalogue import shop_document

SERVICE = "http://127.0.0.1:3000"


@contextmanager
def shop(scripts: Path, board: Board | None = None) -> Iterator[httpx.Client]:
    """The server as `lotse demo --keep` runs it."""
    app = shop_app(shop_document(SERVICE, {"exit": 0.5}), client_scripts(scripts), board or Board(), asyncio.Event())
    socket = opened(0)
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{socket.getsockname()[1]}", timeout=10) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
        socket.close()


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the client is built, as far as a server can tell."""
    folder = tmp_path_factory.mktemp("client")
    for name in ("index.mjs", "banner.mjs", "secret.txt"):
        (folder / name).write_text(f"// {name}")
    return folder


@pytest.fixture(scope="module")
def visited(scripts: Path) -> Iterator[httpx.Client]:
    """One server for all that only look."""
    with shop(scripts) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/category/shoes", "/product/hats-03", "/search?q=amrum", "/cart", "/thanks"])
def test_every_page_is_the_one_document(visited: httpx.Client, path: str) -> None:
    answer = visited.get(path)
    assert answer.status_code == 200
    assert answer.text == (STATIC / "index.html").read_text()


def test_pages_may_load_from_here_and_ask_the_service_and_nobody_else(visited: httpx.Client) -> None:
    for path in ("/", "/static/start.js", "/shop.json", "/client/index.mjs", "/nowhere"):
        headers = visited.get(path).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["connect-src"] == f"'self' {SERVICE}"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_nothing_on_a_page_comes_from_elsewhere() -> None:
    for path in STATIC.iterdir():
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s'\"]*", path.read_text()))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path


def test_of_the_client_only_its_modules_are_handed_out(visited: httpx.Client) -> None:
    assert visited.get("/client/index.mjs").headers["content-type"].startswith("text/javascript")
    assert visited.get("/client/secret.txt").status_code == 404
    assert visited.get("/static/..%2f..%2fdemo.py").status_code == 404


def test_a_name_that_is_not_this_machines_is_refused(visited: httpx.Client) -> None:
    assert visited.get("/", headers={"host": "shop.example"}).status_code == 400
    assert visited.get("/", headers={"host": "localhost:3001"}).status_code == 200


def test_a_path_without_a_page_is_said_to_be_none(visited: httpx.Client) -> None:
    assert visited.get("/wp-login.php").status_code == 404


def test_the_catalogue_is_the_simulated_shops(visited: httpx.Client) -> None:
    told: dict[str, Any] = visited.get("/shop.json").json()
    assert [(one["item"], one["category"], one["price"]) for one in told["items"]] == [tuple(one) for one in products()]
    assert told["categories"] == list(CATEGORIES)
    assert told["collector"] == SERVICE
    assert told["thresholds"] == {"exit": 0.5}
    assert told["features"].keys() == CATALOGUE.features.keys()
    names = [(one["category"], one["name"]) for one in told["items"]]
    assert len(set(names)) == len(names)
    assert "lotse_" not in json.dumps(told)  # as keys begin


def test_a_client_that_is_not_built_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="make clients"):
        client_scripts(tmp_path)


def test_the_crowd_is_told_of_at_once_and_again(scripts: Path) -> None:
    board = Board()
    board.tell("a", {"exit": 0.5})
    with shop(scripts, board) as client, client.stream("GET", "/crowd") as stream:
        lines = (line.removeprefix("data: ") for line in stream.iter_lines() if line)
        assert json.loads(next(lines)) == {"sessions": 1, "scores": {"exit": [50.0]}}
        board.tell("b", {"exit": 0.25})
        assert json.loads(next(lines)) == {"sessions": 2, "scores": {"exit": [25.0, 50.0]}}


def test_who_was_silent_for_long_is_counted_no_more() -> None:
    now = 0.0
    board = Board(lambda: now)
    board.tell("a", {"exit": 0.5})
    now = PRESENT_SECONDS / 2
    board.tell("b", {"exit": 0.25})
    now = PRESENT_SECONDS + 1
    assert board.scores() == {"sessions": 1, "scores": {"exit": [25.0]}}
    board.tell("b", {"exit": 1.0})
    now = 2 * PRESENT_SECONDS
    assert board.scores()["scores"] == {"exit": [100.0]}


def texts(language: str) -> dict[str, str]:
    """What the pages say in a language."""
    found = re.search(rf"const {language} = \{{(.*?)^\}}", (STATIC / "texts.js").read_text(), re.DOTALL | re.MULTILINE)
    assert found
    return dict(re.findall(r"\b(\w+): '(.*?)'[,\n]", found[1]))


def test_both_languages_say_the_same() -> None:
    english, german = texts("en"), texts("de")
    assert english.keys() == german.keys()
    assert set(CATEGORIES) <= english.keys()
    for key, text in english.items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", german[key])), key
        assert text and german[key]


def test_every_text_that_is_asked_for_is_there() -> None:
    known = texts("en").keys()
    for path in STATIC.glob("*.js"):
        asked = set(re.findall(r"\bt\('(\w+)'", path.read_text()))
        assert asked <= known, path


def test_every_text_is_used() -> None:
    code = "".join(path.read_text() for path in STATIC.glob("*.js") if path.name != "texts.js")
    by_name = {*CATEGORIES, "bounceText", "conversionText", "exitText"}
    assert {key for key in texts("en") if f"'{key}'" not in code} == by_name


def test_german_words_are_of_features_that_there_are() -> None:
    words = re.findall(r"(\w+): '", (STATIC / "words.js").read_text().partition("export const VALUES")[0])
    assert len(words) > 100
    assert set(words) <= CATALOGUE.features.keys()
