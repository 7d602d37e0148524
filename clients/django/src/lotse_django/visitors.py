"""Who a request is from: an id in a first-party cookie, by consent; one of the shop's own; or one for this page only.

The cookie's text is the browser client's: a random id and what it may be used for, `3f2a….measure.link`.
"""

from __future__ import annotations

import re
import secrets
from typing import Final, NamedTuple

from django.http import HttpRequest, HttpResponseBase
from django.utils.crypto import salted_hmac

from lotse_django.consent import PURPOSES, Consent
from lotse_django.settings import Settings

# As the service keeps linked visitors; no consent is asked to hold for more than 13 months.
COOKIE_SECONDS: Final = 390 * 86_400
_TEXT: Final = re.compile(r"[0-9A-Za-z_-]{8,64}(?:\.(?:measure|link|personalise))*")


class Held(NamedTuple):
    """What lies in the cookie: the visitor, and what was consented to."""

    visitor: str
    consent: Consent


def held(request: HttpRequest, settings: Settings) -> Held | None:
    """What the cookie says, None without one or where it is none of ours."""
    text = request.COOKIES.get(settings.cookie, "")
    if not _TEXT.fullmatch(text):
        return None
    visitor, *consent = text.split(".")
    return Held(visitor, frozenset(consent))


def drawn() -> str:
    """An id for a visitor whom nobody knows."""
    return secrets.token_hex(16)


def veiled(text: str) -> str:
    """An id made from one of the shop's own, which goes nowhere; by the shop's SECRET_KEY."""
    return salted_hmac("lotse_django.visitor", text, algorithm="sha256").hexdigest()[:32]


def of_session(request: HttpRequest) -> str | None:
    """For `LOTSE["VISITOR"]`: who has a session of the shop (a cart, a login) is one visitor as long as it lasts.

    For engines that keep sessions on the server; a signed cookie has no lasting key.
    """
    session = getattr(request, "session", None)
    return session.session_key if session is not None else None


def keep(response: HttpResponseBase, request: HttpRequest, settings: Settings, visitor: str, consent: Consent) -> None:
    """Have the browser remember the visitor, or forget, as far as it does not already.

    A visit does not prolong what was consented to: the cookie is written when the consent is another one.
    """
    before = request.COOKIES.get(settings.cookie)
    if "link" not in consent:
        if before is not None:
            response.delete_cookie(settings.cookie, path="/", samesite="Lax")
        return
    text = ".".join([visitor, *(purpose for purpose in PURPOSES if purpose in consent)])
    if before is not None and set(before.split(".")) == set(text.split(".")):
        return
    response.set_cookie(
        settings.cookie, text, max_age=COOKIE_SECONDS, path="/", secure=request.is_secure(), samesite="Lax",
        httponly=not settings.script,  # the browser client goes on as the same visitor, so it has to read it
    )  # fmt: skip
