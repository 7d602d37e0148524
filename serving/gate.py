"""Who may come in: the key of a request, what it opens, and the limits per key and per address.

In: the ASGI scope, before the body is read. Addresses are seen by prefix only (/24 of IPv4, /48 of IPv6), as a keyed
hash whose key is drawn at random in this process and replaced every hour; they are never written anywhere.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, Final

from serving.keys import KeyFile, Keys
from serving.limits import Limit
from serving.problems import Problem

if TYPE_CHECKING:
    from serving.keys import Key
    from serving.settings import KeySettings, LimitSettings, ServingSettings

# Open to everybody: what orchestrators ask, and documents. CORS preflights carry no key.
_OPEN: Final = frozenset({"/livez", "/readyz", "/healthz", "/v1/openapi.json"})
# No key of ours comes here: MLflow signs what it sends, visitors show a token that is signed; both are checked later.
_ME: Final = "/v1/visitors/me"
_OFREP: Final = "/ofrep/"
_GROWTHBOOK: Final = ("/api/eval/", "/api/features/")
_SIGNED: Final = frozenset({"/v1/models/refresh", _ME, f"{_ME}/decisions"})
# A page and its files, which hold no data; it asks for a key itself: a browser that opens an address has none to send.
_CONSOLE: Final = "/console"
_EVENTS: Final = "/v1/events"
_SESSIONS: Final = "/v1/sessions/"
_ROTATION_SECONDS: Final = 3_600.0
_HOW: Final = "send a key of this service as 'Authorization: Bearer <key>', a public one also as ?key=<key>"
_LOOPBACK: Final = ("127.", "::ffff:127.")


class Admission:
    """A request that may come in, for what is only known later: how many events it brought."""

    __slots__ = ("_gate", "_names", "key")

    def __init__(self, gate: Gate, key: Key | None, names: Sequence[tuple[Limit, object]]) -> None:
        self.key = key
        self._gate, self._names = gate, names

    def address(self, scope: dict[str, Any], headers: dict[bytes, bytes]) -> str:
        """The client's address, to be looked at and forgotten; empty if it is not known."""
        return self._gate.address(scope.get("client"), headers)

    def holds(self) -> bool:
        """Whether the key that it came with was not revoked meanwhile; for answers that go on and on."""
        return self.key is None or self._gate.keys.knows(self.key)

    def brought(self, events: int) -> None:
        """Charge the events after the first: who brought more than is allowed waits longer with the next request."""
        if events > 1 and self._names:
            now = self._gate.clock()
            for limit, name in self._names:
                limit.owe(name, events - 1, now)


class Gate:
    """Admits requests or raises the problem to answer with.

    `workers`: each has its own tables and its share of a limit; the kernel spreads connections, so a client with few
    connections may meet its limit at one worker earlier than the sum says.
    """

    def __init__(self, keys: Keys, settings: KeySettings, limits: LimitSettings, workers: int = 1) -> None:
        self.keys, self._required = keys, settings.required
        self._key_limit = _share(limits.key_events_per_second, limits.burst_seconds, workers)
        self._address_limit = _share(limits.address_events_per_second, limits.burst_seconds, workers)
        self._proxies = tuple(ip_network(each) for each in limits.trusted_proxies)
        self.clock = time.monotonic
        # a tracker's requests have no place for a key of ours: they only write, and are limited by address
        self.collects: Callable[[str], bool] = lambda path: False
        self._salt, self._rotates_at = b"", 0.0
        self._everybody = Admission(self, None, ())

    def admit(self, scope: dict[str, Any], headers: dict[bytes, bytes] | None = None) -> Admission:
        """Whether a request may come in; headers: those of the scope, where they are looked up already.

        Raises
        ------
        Problem
            401: no key, or none of ours; 403: the key does not open this; 429: too many, with Retry-After.
        """
        path, method = scope["path"], scope["method"]
        if path in _OPEN or method == "OPTIONS":
            return self._everybody
        if headers is None:
            headers = dict(scope["headers"])  # faster than a loop; of a header that came twice, the last
        shown = presented(scope, headers)
        key = self.keys.find(shown) if shown else None
        names: list[tuple[Limit, object]] = []
        now = self.clock()
        if self._address_limit is not None and (key is None or key.kind == "public"):
            who = self._prefix(scope.get("client"), headers, now)
            if who is not None:
                _take(self._address_limit, who, now, "your network")
                names.append((self._address_limit, who))
        if key is None:
            needed = path not in _SIGNED and not self.collects(path) and self._is_needed(scope)
            if needed and not path.startswith(_CONSOLE):
                raise _unknown(shown)
        elif key.kind == "public":
            _check_public(key, path, method, headers)
        if self._key_limit is not None and key is not None:
            _take(self._key_limit, key.id, now, "the key")
            names.append((self._key_limit, key.id))
        return Admission(self, key, names) if names or key else self._everybody

    def _is_needed(self, scope: dict[str, Any]) -> bool:
        """Without any key the service is open to this machine, and to nobody else."""
        if self._required != "auto":
            return self._required
        if self.keys.any:
            return True
        server = scope.get("server")
        if server is None or server[1] is None or _is_here(server[0]):
            return False
        raise Problem(
            401,
            "the service has no keys, so it is open on its own machine only; run: lotse keys create --kind secret "
            "--name <name>, or set keys.required = false to be open to everybody",
            headers=_BEARER,
        )

    def _prefix(self, client: tuple[str, int] | None, headers: dict[bytes, bytes], now: float) -> int | None:
        """A keyed hash of the address' prefix; None where it is no client's: a socket file, this machine, a proxy."""
        address = self.address(client, headers)
        if not address or _is_here(address):
            return None
        if now >= self._rotates_at:
            self._salt, self._rotates_at = token_bytes(16), now + _ROTATION_SECONDS
            assert self._address_limit is not None
            self._address_limit.forget()
        try:
            prefix = _packed(address)
        except OSError:
            return None  # a proxy of ours wrote something that is no address
        # SipHash of Python, 0.1 us: all that is needed of a hash that never leaves this process
        return hash(self._salt + prefix)

    def address(self, client: tuple[str, int] | None, headers: dict[bytes, bytes]) -> str:
        """A client's address, as proxies of ours tell it; empty if it is not known."""
        address = client[0] if client else ""
        if self._proxies and self._is_proxy(address):
            # what a proxy added comes last; what comes before may be made up by the client
            for part in reversed(headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")):
                address = part.strip()
                if not self._is_proxy(address):
                    break
        return address

    def _is_proxy(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._proxies)


def open_gate(settings: ServingSettings) -> Gate:
    """The gate of a service."""
    keys = Keys(KeyFile(Path(settings.keys.folder)))
    return Gate(keys, settings.keys, settings.limits, settings.server.workers)


_BEARER: Final = [(b"www-authenticate", b"Bearer")]


def _share(per_second: float, burst_seconds: float, workers: int) -> Limit | None:
    if not per_second:
        return None
    rate = per_second / workers
    return Limit(rate, max(rate * burst_seconds, 1))


def _take(limit: Limit, name: object, now: float, whose: str) -> None:
    wait = limit.take(name, now)
    if wait:
        raise Problem(
            429,
            f"too many events from {whose}; try again in {wait:.1f} s",
            headers=[(b"retry-after", str(int(wait) + 1).encode())],
        )


def _check_public(key: Key, path: str, method: str, headers: dict[bytes, bytes]) -> None:
    """Raises 403 for what a public key does not open."""
    sends = path == _EVENTS and method == "POST"
    looks = method == "GET" and path.startswith(_SESSIONS)
    if not sends and not looks and not path.startswith((_ME, _OFREP, *_GROWTHBOOK)):
        raise Problem(
            403,
            "a public key only sends events (POST /v1/events) and reads sessions and flags by token; use a secret key",
        )
    origin = headers.get(b"origin", b"") if key.origins else b""
    if origin and origin.decode("latin-1").lower() not in key.origins:
        raise Problem(403, "pages of this origin may not use the key; lotse keys list shows which may")


def presented(scope: dict[str, Any], headers: Mapping[bytes, bytes]) -> bytes:
    """The key that came with a request, as it was sent; empty if none did."""
    found = headers.get(b"authorization", b"")
    if found:
        return found[7:] if found[:7].lower() == b"bearer " else b"-"
    if b"x-api-key" in headers:  # as OFREP has it
        return headers[b"x-api-key"]
    if scope["path"].startswith(_GROWTHBOOK):
        return scope["path"].split("/", 3)[3].encode()
    return _from_query(scope["query_string"]) if b"key=" in scope["query_string"] else b""


def _unknown(shown: bytes) -> Problem:
    if not shown:
        return Problem(401, f"no key; {_HOW}", headers=_BEARER)
    return Problem(401, f"the key is none of this service's, or was revoked; {_HOW}", headers=_BEARER)


def _from_query(query: bytes) -> bytes:
    """The key of a query string: sendBeacon and EventSource cannot set headers. A key needs no escapes.

    A public one only: addresses of requests end up in logs and histories.
    """
    for part in query.split(b"&"):
        if part.startswith(b"key="):
            return part[4:] if part.startswith(b"key=lotse_pub_") else b"-"
    return b""


def _is_here(address: str) -> bool:
    return address == "::1" or address.startswith(_LOOPBACK)


def _packed(address: str) -> bytes:
    """The first 24 bits of an IPv4 address, the first 48 of an IPv6 address.

    Raises
    ------
    OSError
        It is no address.
    """
    if ":" not in address:
        return socket.inet_pton(socket.AF_INET, address)[:3]
    packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0].strip("[]"))
    if packed.startswith(b"\0" * 10 + b"\xff\xff"):
        return packed[12:15]
    return packed[:6]
