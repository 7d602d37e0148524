"""Which requests are page views, what they tell, and how a view says otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

from django.conf import settings as django_settings
from django.http import HttpRequest
from django.urls import Resolver404, resolve
from django.utils.encoding import escape_uri_path

from lotse_django.device import device
from lotse_django.settings import Settings

View = TypeVar("View", bound=Callable[..., Any])
_MARK: Final = "lotse_page_view"
_LONGEST: Final = 4_000
# Campaign tags whole, of click ids only that there is one.
_TAGS: Final = re.compile(
    r"(?:^|&)((?:utm|mtm|pk)_(?:source|medium|campaign)=[^&]*|(?:[gw]braid|(?:g|d|y|tt)clid|msclkid)=[^&])"
)


class PageView(NamedTuple):
    """The event that a page is: its name, empty for none, and further fields of it from the view's arguments."""

    name: str
    details: Callable[..., Mapping[str, Any]] | None = None


PAGE_VIEW: Final = PageView("page_view")
NO_PAGE_VIEW: Final = PageView("")


def page_view(name: str, details: Callable[..., Mapping[str, Any]] | None = None) -> Callable[[View], View]:
    """Say what event a view's pages are; details: of the request and the view's arguments.

    @page_view("view_item", lambda request, sku: {"item": sku})
    def product(request, sku): ...
    """

    def mark(view: View) -> View:
        setattr(view, _MARK, PageView(name, details))
        return view

    return mark


def no_page_view(view: View) -> View:
    """Say that a view's pages are no events; `request.lotse.track` works in them all the same."""
    setattr(view, _MARK, NO_PAGE_VIEW)
    return view


def is_skipped(request: HttpRequest, settings: Settings) -> bool:
    """Whether a request is nobody's visit: a static file, a program, a page that is loaded in advance."""
    static = (django_settings.STATIC_URL, django_settings.MEDIA_URL)
    beginnings = (*settings.skip, *(url for url in static if url and url.startswith("/") and url != "/"))
    if beginnings and request.path.startswith(tuple(beginnings)):
        return True
    headers = request.headers
    purpose = headers.get("Sec-Purpose", "") + headers.get("Purpose", "") + headers.get("X-Moz", "")
    return "prefetch" in purpose or device(headers.get("User-Agent", "")) == "bot"


def page_view_of(request: HttpRequest) -> tuple[str, dict[str, Any]]:
    """The event that a request is before its view has run: name and fields; an empty name for none."""
    headers = request.headers
    is_navigation = headers.get("Sec-Fetch-Dest", "document") == "document" and "text/html" in headers.get("Accept", "")
    if request.method != "GET" or not is_navigation:
        return "", {}
    try:
        match = resolve(request.path_info, getattr(request, "urlconf", None))
    except Resolver404:
        return "", {}
    told: PageView = getattr(match.func, _MARK, PAGE_VIEW)
    if not told.name:
        return "", {}
    more = told.details(request, *match.args, **match.kwargs) if told.details else {}
    return told.name, {**entry_fields(request), **more}


def page_fields(request: HttpRequest) -> dict[str, Any]:
    """Of every event: the page's path, and the kind of device."""
    return {"page": _path(request), "device": device(request.headers.get("User-Agent", ""))}


def entry_fields(request: HttpRequest) -> dict[str, Any]:
    """From what the service tells channel and campaign: the page's address with its campaign tags; of the referrer,
    scheme and host. Nothing else of an address goes out.
    """
    tags = "&".join(_TAGS.findall(request.META.get("QUERY_STRING", "")))
    page = f"{request.scheme}://{request.get_host()}{_path(request)}"
    if tags and len(page) + len(tags) < _LONGEST:
        page = f"{page}?{tags}"
    return {"page": page, "referrer": _site(request.headers.get("Referer", ""))}


def _path(request: HttpRequest) -> str:
    # as a browser writes it
    return escape_uri_path(request.path)[: _LONGEST // 2]


def _site(address: str) -> str:
    try:
        parts = urlsplit(address)
        return f"{parts.scheme}://{parts.hostname}" if parts.scheme and parts.hostname else ""
    except ValueError:
        return ""
