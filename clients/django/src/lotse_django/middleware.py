"""The middleware: each page is an event, and its answer is there when the view begins, or the page goes on without."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import msgspec
from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction
from django.apps import apps
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.cache import patch_cache_control, patch_vary_headers

from lotse_django import visitors
from lotse_django.apps import LotseConfig
from lotse_django.client import Client
from lotse_django.consent import NOTHING, narrowed, purposes
from lotse_django.lotse import Lotse
from lotse_django.pages import is_skipped, page_view_of
from lotse_django.wire import Event

logger: Final = logging.getLogger("lotse")
# What browsers object with; the service honours it whatever an event says.
_OBJECTIONS: Final = ("Sec-GPC", "DNT")


class LotseMiddleware:
    """`request.lotse`, for views of both kinds. Nothing that goes wrong here reaches a page."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        self._app = cast(LotseConfig, apps.get_app_config("lotse_django"))
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Tell, ask, go on."""
        if self._is_async:
            return self._call_async(request)
        lotse, client = self._new(request)
        if client is not None:
            with _harmless("a visitor's consent or id"):
                said = _called(client.settings.consent, request)
                own = _called(client.settings.visitor, request)
                _identify(lotse, client, request, said, own)
            if event := _page(lotse, client, request):
                with _harmless("an answer"):
                    lotse.answered(client.ask(event, _objections(request)))
        with self._app.evaluated_for(lotse):
            response: HttpResponseBase = self._get_response(request)
        return _finished(lotse, request, response)

    async def _call_async(self, request: HttpRequest) -> HttpResponseBase:
        lotse, client = self._new(request)
        if client is not None:
            with _harmless("a visitor's consent or id"):
                said = await _awaited(client.settings.consent, request)
                own = await _awaited(client.settings.visitor, request)
                _identify(lotse, client, request, said, own)
            if event := _page(lotse, client, request):
                with _harmless("an answer"):
                    lotse.answered(await client.ask_async(event, _objections(request)))
        with self._app.evaluated_for(lotse):
            response: HttpResponseBase = await self._get_response(request)
        return _finished(lotse, request, response)

    def _new(self, request: HttpRequest) -> tuple[Lotse, Client | None]:
        """The request's `lotse`, and the client if there is anything to tell."""
        client = self._app.client
        lotse = Lotse("not_configured")
        if client is not None:
            lotse = Lotse("skipped", client, request)
            with _harmless("a request"):
                if is_skipped(request, client.settings):
                    client = None
        request.lotse = lotse  # type: ignore[attr-defined]
        return lotse, client


def _identify(lotse: Lotse, client: Client, request: HttpRequest, said: Any, own: Any) -> None:
    """Who it is, and what they have consented to: what the shop says, else what our cookie does."""
    held = visitors.held(request, client.settings)
    granted = purposes(said) if said is not None else held.consent if held else NOTHING
    visitor = held.visitor if held else visitors.veiled(str(own)) if own else visitors.drawn()
    consent = narrowed(request, granted)
    lotse.identify(visitor, consent, held=held is not None, is_known=True)


def _page(lotse: Lotse, client: Client, request: HttpRequest) -> Event | None:
    """The event that the request is, if it is one."""
    lotse.reason = "no_event"
    if not lotse.visitor:  # nobody can say what they have consented to: as if they had not
        lotse.identify(visitors.drawn(), NOTHING, held=False, is_known=False)
    with _harmless("a page view"):
        if client.settings.require_consent and "measure" not in lotse.consent:
            lotse.reason = "no_consent"
            return None
        name, fields = page_view_of(request)
        if name:
            event = lotse.page_event(name, fields)
            lotse.reason = "unavailable"  # until it is answered
            return event
    return None


def _finished(lotse: Lotse, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    with _harmless("what a page tells"):
        if lotse.finish(response):
            # flags and scores are one visitor's: no cache may give them to another
            patch_vary_headers(response, ("Cookie",))
            if not response.has_header("Cache-Control"):
                patch_cache_control(response, private=True)
    return response


def _objections(request: HttpRequest) -> dict[str, str]:
    return {name: "1" for name in _OBJECTIONS if request.headers.get(name) == "1"}


def _called(resolver: Callable[[HttpRequest], Any] | None, request: HttpRequest) -> Any:
    if resolver is None:
        return None
    if iscoroutinefunction(resolver):
        return async_to_sync(resolver)(request)
    return resolver(request)


async def _awaited(resolver: Callable[[HttpRequest], Any] | None, request: HttpRequest) -> Any:
    found = resolver(request) if resolver else None
    return await found if isinstance(found, Awaitable) else found


@contextmanager
def _harmless(what: str) -> Iterator[None]:
    """Whatever happens inside is logged, without a value, and the page goes on."""
    try:
        yield
    except Exception as error:
        logger.error("%s could not be read: %s", what, _told(error))


def _told(error: Exception) -> str:
    """The kind of an error and where it was raised; its text may hold anything, msgspec's names fields only."""
    if isinstance(error, msgspec.ValidationError):
        return str(error)
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    where = f" in {place.tb_frame.f_code.co_name}, line {place.tb_lineno}" if place else ""
    return type(error).__name__ + where
