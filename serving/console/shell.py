"""The console's page and its static files, as they lie beside this module; nothing is built and nothing else is loaded.

In: a path. Out: the file with an ETag, compressed where the browser takes it. A view is in the page's tabs if its
script is delivered, so the server tells which are there.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from serving.http.call import Call, Reply
from serving.problems import Problem

PAGE: Final = "/console"
FILE: Final = "/console/static/{name}"
# In the order of the tabs.
VIEWS: Final = ("live", "journeys", "models", "experiments")
TYPES: Final = {
    ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
# Plotly sets styles on elements; everything else comes from our own files.
POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_STATIC: Final = Path(__file__).parent / "static"
_PLOTLY: Final = "plotly.min.js"
_INDEX: Final = "index.html"
# What is shorter fits into a packet or two as it is.
_LEAST_COMPRESSED_BYTES: Final = 1_000
_NOT_MODIFIED: Final = 304
_HEADERS: Final = (
    # asked again each time, and answered with 304 where nothing has changed
    (b"cache-control", b"no-cache"),
    (b"content-security-policy", POLICY),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"vary", b"accept-encoding"),
)


class Delivered(NamedTuple):
    """A file as it goes out; packed: compressed, empty where that is not worth it."""

    content_type: bytes
    body: bytes
    packed: bytes
    etag: bytes


class Shell:
    """The files, each read once."""

    def __init__(self) -> None:
        self._paths = {path.name: path for path in _STATIC.iterdir() if path.suffix in TYPES}
        self._index = self._paths.pop(_INDEX)
        plotly = _installed_plotly()
        if plotly is not None:
            self._paths[_PLOTLY] = plotly
        self._files: dict[str, Delivered] = {}

    @property
    def names(self) -> list[str]:
        """Of the static files."""
        return sorted(self._paths)

    async def page(self, call: Call) -> Reply:
        """GET /console.

        Raises
        ------
        Problem
            404: it is switched off.
        """
        call.query()
        return await self._reply(call, _INDEX)

    async def file(self, call: Call) -> Reply:
        """GET /console/static/<name>.

        Raises
        ------
        Problem
            404: there is no such file, or the console is switched off.
        """
        call.query()
        if call.rest not in self._paths:
            raise Problem(404, "the console has no such file; see /console")
        return await self._reply(call, call.rest)

    async def _reply(self, call: Call, name: str) -> Reply:
        if not call.engine.settings.console.enabled:
            raise Problem(404, "the console is switched off; see console.enabled in configs/serving.toml")
        found = self._files.get(name)
        if found is None:
            # to read and to compress plotly's code takes longer than an event may wait for
            found = self._files[name] = await asyncio.to_thread(self._read, name)
        headers = (*_HEADERS, (b"etag", found.etag))
        if found.etag in [tag.strip().removeprefix(b"W/") for tag in call.header(b"if-none-match").split(b",")]:
            return Reply(found.content_type, b"", _NOT_MODIFIED, headers)
        if found.packed and b"gzip" in call.header(b"accept-encoding"):
            return Reply(found.content_type, found.packed, headers=(*headers, (b"content-encoding", b"gzip")))
        return Reply(found.content_type, found.body, headers=headers)

    def _read(self, name: str) -> Delivered:
        path = self._index if name == _INDEX else self._paths[name]
        body = self._page() if name == _INDEX else path.read_bytes()
        packed = gzip.compress(body, 6, mtime=0) if len(body) >= _LEAST_COMPRESSED_BYTES else b""
        etag = b'"%s"' % hashlib.sha256(body).hexdigest()[:16].encode()
        return Delivered(TYPES[path.suffix], body, packed, etag)

    def _page(self) -> bytes:
        """The page, told which views and styles there are."""
        views = [view for view in VIEWS if f"{view}.js" in self._paths]
        styles = [view for view in views if f"{view}.css" in self._paths]
        text = self._index.read_text(encoding="utf-8")
        return text.replace("{views}", " ".join(views)).replace("{styles}", " ".join(styles)).encode()


def _installed_plotly() -> Path | None:
    """Plotly's code for browsers, of the installed package; to import that would take half a second."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "package_data" / _PLOTLY
    return path if path.exists() else None
