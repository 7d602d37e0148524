"""The console over HTTP: the page for everybody, data for whoever has a secret key, or asks on this machine."""

from __future__ import annotations

import asyncio
import gzip
import re
from pathlib import Path

import httpx
import pytest

from serving.app import App
from serving.console.shell import POLICY, VIEWS
from serving.keys import KeyFile
from tests.serving.in_process import ask, engine_of, start
from tests.workspace import ROOT

STATIC = ROOT / "serving" / "console" / "static"
FILES = sorted(path.name for path in STATIC.iterdir() if path.suffix in (".js", ".css", ".svg"))
JOURNEYS = b"/v1/insight/journeys?depth=99"  # refused with 422 once somebody may ask
LOCAL = (b"host", b"localhost:3000")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    folder = tmp_path_factory.mktemp("frame")
    return start(folder, f"keys.folder={folder}/keys")


def got(app: App, path: str, **headers: str) -> httpx.Response:
    async def asked() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as there:
            return await there.get(path, headers=headers)

    return asyncio.run(asked())


# ---- what is delivered ----


def test_the_page_and_all_of_its_files_are_delivered_under_a_strict_policy(app: App) -> None:
    paths = ["/console", *(f"/console/static/{name}" for name in (*FILES, "plotly.min.js"))]
    for path in paths:
        answer = got(app, path)
        assert answer.status_code == 200, path
        assert answer.headers["content-security-policy"] == POLICY.decode()
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-cache"
    assert "'unsafe-inline'" not in POLICY.decode().partition("script-src")[2].partition(";")[0]
    page = got(app, "/console").text
    # every script and style is a file, and every address the page's own
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == [] and "<style" not in page and "onclick" not in page
    assert [
        url for url in re.findall(r'(?:src|href)="([^"]+)"', page) if not url.startswith(("console/static/", "#"))
    ] == []


def test_a_view_is_told_of_if_its_script_is_there(app: App) -> None:
    there = [view for view in VIEWS if f"{view}.js" in FILES]
    assert "live" in there
    assert f'data-views="{" ".join(there)}"' in got(app, "/console").text


def test_a_file_comes_compressed_and_once(app: App) -> None:
    plain = got(app, "/console/static/console.js", **{"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers and plain.text == (STATIC / "console.js").read_text()
    packed = got(app, "/console/static/console.js", **{"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip" and packed.text == plain.text
    assert int(packed.headers["content-length"]) == len(gzip.compress(plain.content, 6, mtime=0))
    again = got(app, "/console/static/console.js", **{"if-none-match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["nothing.js", "index.html", "../shell.py", "..%2fshell.py", "live.js/x", ""])
def test_nothing_else_is_delivered(app: App, name: str) -> None:
    status, body = asyncio.run(ask(app, "GET", f"/console/static/{name}".encode(), [LOCAL]))
    assert status == 404 and b"import" not in body


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    off = start(tmp_path, "console.enabled=false")
    for path in ("/console", "/console/static/console.js", "/v1/insight/live"):
        answer = got(off, path)
        assert answer.status_code == 404 and "console.enabled" in answer.text


# ---- who may see data ----


@pytest.mark.parametrize(
    ("headers", "address", "said"),
    [
        ([(b"host", b"evil.example:3000")], "127.0.0.1", "Host names another one"),
        ([(b"host", b"localhost.evil.example")], "127.0.0.1", "Host names another one"),
        ([], "127.0.0.1", "Host names another one"),
        ([LOCAL, (b"origin", b"https://evil.example")], "127.0.0.1", "another origin"),
        ([LOCAL, (b"origin", b"http://localhost:4000")], "127.0.0.1", "another origin"),
        ([LOCAL, (b"origin", b"null")], "127.0.0.1", "another origin"),
        ([LOCAL, (b"sec-fetch-site", b"cross-site")], "127.0.0.1", "another origin"),
        ([LOCAL], "203.0.113.7", "comes from another one"),
        ([LOCAL, (b"x-forwarded-for", b"203.0.113.7")], "127.0.0.1", "a proxy"),
    ],
)
def test_without_a_key_only_this_machine_may_ask(
    app: App, headers: list[tuple[bytes, bytes]], address: str, said: str
) -> None:
    for path in (JOURNEYS, b"/v1/insight/live?list=nothing"):
        status, body = asyncio.run(ask(app, "GET", path, headers, address=address))
        assert (status, said in body.decode()) == (403, True), body


@pytest.mark.parametrize(
    "headers",
    [
        [LOCAL],
        [(b"host", b"127.0.0.1:3000"), (b"origin", b"http://127.0.0.1:3000")],
        [(b"host", b"[::1]:3000"), (b"sec-fetch-site", b"same-origin")],
    ],
)
def test_this_machine_may_ask(app: App, headers: list[tuple[bytes, bytes]]) -> None:
    for path in (JOURNEYS, b"/v1/insight/live?list=nothing"):
        status, body = asyncio.run(ask(app, "GET", path, headers))
        assert status == 422, body


def test_with_keys_only_a_secret_one_opens_data_and_the_page_stays_open(tmp_path: Path) -> None:
    app = start(tmp_path, f"keys.folder={tmp_path}/keys")
    keys = KeyFile(Path(engine_of(app).settings.keys.folder))
    public, secret = keys.create("public", "shop")[1], keys.create("secret", "console")[1]
    assert app.gate is not None and app.gate.keys.follow()
    path = "/v1/insight/live?list=nothing"
    assert got(app, path).status_code == 401
    assert got(app, path, authorization=f"Bearer {public}").status_code == 403
    assert got(app, f"{path}&key={secret}").status_code == 401  # an address is no place for it
    assert got(app, path, authorization=f"Bearer {secret}").status_code == 422
    # with a key it does not matter which machine asks, or by which name
    headers = [(b"host", b"lotse.example"), (b"authorization", f"Bearer {secret}".encode())]
    assert asyncio.run(ask(app, "GET", path.encode(), headers, address="203.0.113.7"))[0] == 422
    assert got(app, "/console").status_code == got(app, "/console/static/frame.js").status_code == 200


def test_pages_of_other_origins_hear_nothing_of_data_even_where_cors_lets_them(tmp_path: Path) -> None:
    app = start(tmp_path, 'cors.origins=["https://shop.example"]')
    headers = [LOCAL, (b"origin", b"https://shop.example")]
    assert asyncio.run(ask(app, "GET", JOURNEYS, headers))[0] == 403
