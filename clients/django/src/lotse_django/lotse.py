"""`request.lotse`: what the service says of the session that a request belongs to, and what the shop tells it."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
from django.http import HttpRequest, HttpResponseBase

from lotse_django import visitors
from lotse_django.client import Client, Told
from lotse_django.consent import EVERYTHING, NOTHING, Consent, narrowed, purposes
from lotse_django.pages import page_fields
from lotse_django.wire import NO_ANSWER, Event, checked, events_of

logger: Final = logging.getLogger("lotse")
Default = TypeVar("Default")
_SERVER_ERROR: Final = 500


class Lotse:
    """One request's view of its session. Without an answer there are no scores, and flags have the shop's defaults.

    Attributes
    ----------
    reason: `ok`; else why there are no scores: `timeout`, `unavailable`, `refused` (by the service; the log says why),
    `no_event` (the request is no page view), `no_consent` (`REQUIRE_CONSENT`), `skipped` (a program, a page loaded in
    advance, a path of `SKIP`), `not_configured`; or what the service says of its answer, such as `store_unreachable`.
    """

    def __init__(self, reason: str, client: Client | None = None, request: HttpRequest | None = None) -> None:
        self.reason = reason
        self._client, self._request = client, request
        self._answer = NO_ANSWER
        self._defaults: Mapping[str, Any] = client.settings.defaults if client else {}
        self._visitor, self._consent, self._held = "", NOTHING, False
        # whose consent is not known, of that nothing is kept and nothing forgotten
        self._is_known = False
        self._waiting: list[Event] | None = []
        self._has_told_page = self._has_told_withdrawal = self._is_used = False

    @property
    def scores(self) -> Mapping[str, float]:
        """Probabilities by head, such as `conversion`."""
        self._is_used = True
        return self._answer.scores

    @property
    def flags(self) -> Mapping[str, Any]:
        """Values by flag."""
        self._is_used = True
        return {**self._defaults, **{key: flag.value for key, flag in self._answer.flags.items()}}

    @property
    def session(self) -> str:
        """The session's token, empty without an answer: the right to see the session, for the page only."""
        self._is_used = True
        return self._answer.session

    @property
    def models(self) -> Mapping[str, str]:
        """Versions of the models that gave the scores."""
        return self._answer.models

    @property
    def visitor(self) -> str:
        """The visitor's id as the service is told it; empty for a request that is not told of."""
        return self._visitor

    @property
    def consent(self) -> Consent:
        """What the visitor has consented to, less what the browser objects to."""
        return self._consent

    def flag(self, key: str, default: Any = None) -> Any:
        """A flag's value; where there is none, the default, by default that of `LOTSE["FLAGS"]`."""
        self._is_used = True
        flag = self._answer.flags.get(key)
        if flag is not None and flag.value is not None:
            return flag.value
        return self._defaults.get(key) if default is None else default

    def score(self, head: str, default: Default | None = None) -> float | Default | None:
        """A score, or the default."""
        return self.scores.get(head, default)

    def track(self, name: str, details: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Something happened: `track("add_to_cart", item="SKU-1", price=79.9)`; with `items`, one event a product.

        It is sent when the page was, in the background, and not at all if the page failed (5xx). What cannot be sent is
        in the log; nothing is raised.
        """
        if self._client is None or not self._visitor:
            return
        if self._client.settings.require_consent and "measure" not in self._consent:
            return
        try:
            given = {**self._common(), **(details or {}), **more}
            common = {key: given.pop(key) for key in ("visitor", "id", "time", "consent")}
            events = [checked({"name": name, **fields, **common, "id": _new_id()}) for fields in events_of({}, given)]
        except (msgspec.ValidationError, TypeError, ValueError, AttributeError) as error:
            # msgspec names the field and never its value; others may
            why = str(error) if isinstance(error, msgspec.ValidationError) else type(error).__name__
            logger.warning("an event was not sent: %s", why)
            return
        self._put(events)

    def grant(self, *granted: str) -> None:
        """The visitor consents, by default to everything: from now on, and with `link` by a cookie for later visits.

        Raises
        ------
        ValueError
            A purpose is none of `measure`, `link`, `personalise`.
        """
        found = purposes(granted) if granted else EVERYTHING
        if self._request is not None and self._visitor:
            self._consent = narrowed(self._request, found)
            self._is_known = True

    def withdraw(self) -> None:
        """The visitor takes all of it back: the cookie goes, and the service forgets that visits belong together."""
        self._consent = NOTHING
        self._is_known = bool(self._visitor)

    # what follows is the middleware's

    def identify(self, visitor: str, consent: Consent, *, held: bool, is_known: bool) -> None:
        """Say who it is; held: by a cookie of ours."""
        self._visitor, self._consent, self._held, self._is_known = visitor, consent, held, is_known

    def page_event(self, name: str, fields: Mapping[str, Any]) -> Event:
        """The event that the page is.

        Raises
        ------
        msgspec.ValidationError
            A view gave it a field that is none.
        """
        event = checked({**self._common(), **fields, "name": name})
        self._has_told_page = True
        self._has_told_withdrawal = "link" not in self._consent
        return event

    @property
    def has_told_page(self) -> bool:
        """Whether the server tells the service of this page, so that the browser must not."""
        return self._has_told_page

    def answered(self, told: Told) -> None:
        """What came of it."""
        self._answer, self.reason = told

    def finish(self, response: HttpResponseBase) -> bool:
        """Send what waits, keep or forget the visitor; whether the response is for this visitor only."""
        client, request, waiting = self._client, self._request, self._waiting or []
        self._waiting = None
        if client is None or request is None or not self._visitor:
            return self._is_used
        if self._held and self._is_known and "link" not in self._consent and not self._has_told_withdrawal:
            waiting = [*waiting, checked({**self._common(), "name": "custom", "interactive": False})]
        elif response.status_code >= _SERVER_ERROR:
            waiting = []
        if waiting:
            client.put(waiting)
        if not self._is_known:
            return self._is_used
        before = len(response.cookies)
        visitors.keep(response, request, client.settings, self._visitor, self._consent)
        return self._is_used or len(response.cookies) > before

    def _common(self) -> dict[str, Any]:
        assert self._request is not None
        return {
            **page_fields(self._request),
            "visitor": self._visitor,
            "id": _new_id(),
            "time": time.time_ns() // 1_000_000,
            "consent": sorted(self._consent),
        }

    def _put(self, events: list[Event]) -> None:
        if self._waiting is not None:
            self._waiting += events
        elif self._client is not None:
            self._client.put(events)  # of a response that is streamed


def _new_id() -> str:
    return secrets.token_hex(16)
