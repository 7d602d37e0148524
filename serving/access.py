"""Who may see and do what operators do: whoever has a secret key; where no key is needed, this machine alone.

A request counts as this machine's if it comes from its loopback address, says so in `Host` (another name that leads
here is a page that rebinds its own name), comes from no page of another origin, and was passed on by no proxy: one on
this machine would lend its address to everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from serving.http.call import Call, Handler, Reply
from serving.problems import Problem

# Paths of what the console alone is made for.
INSIGHT: Final = "/v1/insight/"
_HERE: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_PASSED_ON: Final = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"via")
_SECRET: Final = "send a secret key as 'Authorization: Bearer <key>' (lotse keys create --kind secret --name <name>)"


def guarded(handler: Handler) -> Handler:
    """A handler that answers whoever has a secret key, or asks on this machine where no key is needed."""

    @wraps(handler)
    async def answer(call: Call) -> Reply:
        check(call)
        return await handler(call)

    return answer


def check(call: Call) -> None:
    """Whether a request that the gate let in may see what the console shows.

    Raises
    ------
    Problem
        403: it may not.
    """
    # the gate opens these paths to no public key
    if call.admission.key is not None:
        return
    client = call.scope.get("client")
    problem = _wrong(client[0] if client else "", dict(call.scope["headers"]))
    if problem:
        raise Problem(403, f"without a key this is open to the service's own machine only: {problem}; {_SECRET}")


def refuse_pages(call: Call) -> None:
    """Keep pages of other origins from what only operators do: where no key is needed, every page that one opens could.

    Raises
    ------
    Problem
        403: one asks, without a key.
    """
    if call.admission.key is None and _is_foreign(dict(call.scope["headers"])):
        raise Problem(403, f"a page of another origin asks, without a key; {_SECRET}")


def _wrong(address: str, headers: Mapping[bytes, bytes]) -> str:
    """What speaks against a request of this machine's own; empty if nothing does."""
    try:
        here = ip_address(address.removeprefix("::ffff:")).is_loopback
    except ValueError:  # a socket file: whoever asks there is not known
        here = False
    if not here:
        return "the request comes from another one"
    if any(name in headers for name in _PASSED_ON):
        return "a proxy has passed the request on"
    if not _is_local(f"//{headers.get(b'host', b'').decode('latin-1')}"):
        return "Host names another one; ask http://localhost"
    return "a page of another origin asks" if _is_foreign(headers) else ""


def _is_foreign(headers: Mapping[bytes, bytes]) -> bool:
    origin = headers.get(b"origin", b"").decode("latin-1")
    if origin and not _is_same(origin, headers.get(b"host", b"").decode("latin-1")):
        return True
    return headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin")


def _is_local(url: str) -> bool:
    try:
        return (urlsplit(url).hostname or "") in _HERE
    except ValueError:
        return False


def _is_same(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).scheme in ("http", "https") and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
