"""What the shop's consent manager keeps: `agreed=statistics|profile`."""

from __future__ import annotations

import asyncio

from django.http import HttpRequest
from lotse_django.consent import Consent, words_cookie

of_request = words_cookie("agreed", {"statistics": "measure", "profile": "link", "ads": "personalise"})


async def of_request_async(request: HttpRequest) -> Consent | None:
    """The same, for a shop that has to ask somebody."""
    await asyncio.sleep(0)
    return of_request(request)
