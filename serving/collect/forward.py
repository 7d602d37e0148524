"""Forwarding: a tracker's original collector gets what its clients send to us, so that existing analytics goes on.

In: requests as they came. Out: the same to the original, of whose answer nothing but the status is looked at.

They hold what we never keep: addresses, user agents, ids. So they are in memory only, for `forward.deadline_seconds` at
most, and in no file, log or metric.

Nobody waits for the original: a request is queued behind its answer. What the original cannot take is tried again with
growing pauses, by the sender that has it: while it is away, no more tries are made than there are senders. A request
that was sent and not answered in time is not sent again; it may have been counted, and not every tracker has ids.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from fnmatch import translate
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote_from_bytes

from aiohttp import ClientConnectionError, ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from yarl import URL

from serving.sending import AWAY, DeclinedError, Sending, backoff, forget_where, is_late

if TYPE_CHECKING:
    from serving.collect import Hit
    from serving.metrics import Metrics
    from serving.settings import ForwardSettings

logger = logging.getLogger("lotse.forward")

# RFC 9110, 7.6.1: about the connection that a request came on.
_HOP_BY_HOP: Final = (
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
    b"transfer-encoding", b"upgrade",
)  # fmt: skip
# What may be made up by a client where no proxy of ours wrote it: we say ourselves from where a request came.
_ADDRESSES: Final = (
    b"b-forwarded-for", b"cf-connecting-ip", b"client-ip", b"fastly-client-ip", b"forwarded", b"true-client-ip",
    b"x-client-ip", b"x-cluster-client-ip", b"x-forwarded", b"x-forwarded-for", b"x-forwarded-host",
    b"x-forwarded-port", b"x-forwarded-proto", b"x-forwarded-server", b"x-plausible-ip", b"x-real-ip",
)  # fmt: skip
_LEFT_OUT: Final = frozenset((*_HOP_BY_HOP, *_ADDRESSES, b"content-length", b"expect", b"host", b"via"))
# aiohttp adds its own of these where a client sent none.
_NOT_ADDED: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_ASCII: Final = "".join(map(chr, range(0x21, 0x7F))).replace("#", "")
_VIA: Final = "1.1 lotse"
# A key of ours is nobody else's business: its header is left out, a request that holds a secret one inside does not go.
_OUR_KEY: Final = b"lotse_"
_SECRET_KEY: Final = b"lotse_sec_"

# After a 5xx that does not say that the original is away, and may be the request's own fault, so many tries are made.
_TRIES: Final = 3
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 8
_wait: Final = backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
# What Python's objects take of memory beside their content.
_REQUEST_BYTES, _HEADER_BYTES = 1_000, 150


class Passed(NamedTuple):
    """A request on its way. due: when it is given up, by the loop's clock; size: bytes of memory, roughly."""

    scope: Mapping[str, Any]
    body: bytes
    address: str
    due: float
    size: int


class Forwarder(Sending[Passed]):
    """What one worker passes on of one tracker.

    Every request that is put in ends in one of two counts: `forwarded` by the original's status, or `forward_dropped`
    by a reason: overflow, expired (it waited too long), unreachable (the original was, until then), timeout (no answer
    in time), objected, secret (it holds a secret key of ours), loop (it has been here before), stopped (the service
    has), failed (what was sent, or what was answered, is no HTTP).
    """

    def __init__(self, tracker: str, original: str, settings: ForwardSettings, metrics: Metrics) -> None:
        super().__init__(settings.connections, round(settings.queue_mib * 2**20))
        self._tracker, self._original, self._settings = tracker, original.rstrip("/"), settings
        self._metrics = metrics
        self._cookies = re.compile("|".join(map(translate, settings.cookies)) or "(?!)")
        self._reached = True
        metrics.forward_queue[tracker] = 0

    def put(self, scope: Mapping[str, Any], hit: Hit, body: bytes, *, objected: bool) -> None:
        """Have a request passed on.

        scope: ASGI's; hit: what was read of it; body: as it came, in its encoding; objected: whether its visitor does.
        """
        if objected and not self._settings.objected:
            return self._lose("objected")
        if _SECRET_KEY in hit.body or _SECRET_KEY in scope["query_string"]:
            return self._lose("secret")
        size, seen = len(body) + len(scope["query_string"]) + _REQUEST_BYTES, False
        for name, value in scope["headers"]:
            size += len(name) + len(value) + _HEADER_BYTES
            seen = seen or (name == b"via" and _VIA.encode() in value)
        if seen:  # the original's name leads to us: it would go round for ever
            return self._lose("loop")
        if not scope["raw_path"].startswith(b"/"):
            return self._lose("failed")
        due = asyncio.get_running_loop().time() + self._settings.deadline_seconds
        lost = self.enqueue(Passed(scope, body, hit.address, due, size))
        return self._lose(lost) if lost else None

    def _client(self) -> ClientSession:
        return ClientSession(
            connector=TCPConnector(limit=self._settings.connections), cookie_jar=DummyCookieJar(),
            auto_decompress=False, timeout=ClientTimeout(total=self._settings.timeout_seconds),
            skip_auto_headers=_NOT_ADDED,
        )  # fmt: skip

    def _queued(self, change: int) -> None:
        self._metrics.forward_queue[self._tracker] += change

    def _ended(self, item: Passed, lost: str) -> None:
        del item
        if lost:
            self._lose(lost)

    def _lose(self, reason: str) -> None:
        self._metrics.forward_dropped[self._tracker, reason] += 1

    async def _deliver(self, session: ClientSession, items: list[Passed]) -> str:
        """Why it is lost, empty if it is not."""
        (passed,) = items
        if asyncio.get_running_loop().time() > passed.due:
            return "expired"
        try:
            status = await self._try(session, passed)
        except DeclinedError as declined:
            forget_where(declined)
            status = declined.status
        except (ClientConnectionError, OSError) as error:
            forget_where(error)
            return "timeout" if is_late(error) else "unreachable"
        except Exception as error:
            forget_where(error)
            # its words may hold what was to be sent
            logger.error("a request to the original collector of %s failed: %s", self._tracker, type(error).__name__)
            return "failed"
        else:
            if not self._reached:
                self._reached = True
                logger.info("the original collector of %s takes requests again", self._tracker)
        self._metrics.forwarded[self._tracker, str(status)] += 1
        return ""

    async def _try(self, session: ClientSession, passed: Passed) -> int:
        """The status of the original's answer; what it cannot take is tried again.

        Raises
        ------
        DeclinedError, ClientError, TimeoutError
            As of `_ask`, at last.
        """
        try:
            return await self._ask(session, passed)
        except (DeclinedError, ClientConnectionError) as error:
            if is_late(error):
                raise
            self._note(error)
        # the library, which takes longer for a call than a request does, is asked for what has failed only
        await asyncio.sleep(_FIRST_PAUSE_SECONDS)
        loop = asyncio.get_running_loop()

        def enough(state: RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome is not None else None
            if isinstance(error, DeclinedError) and error.status not in AWAY and state.attempt_number >= _TRIES - 1:
                return True
            return loop.time() + state.upcoming_sleep > passed.due

        trying = AsyncRetrying(retry=retry_if_exception(_again), stop=enough, wait=_wait, reraise=True)
        status: int = await trying(self._ask, session, passed)
        return status

    async def _ask(self, session: ClientSession, passed: Passed) -> int:
        """As `_asked`; an error holds nothing of the request."""
        try:
            return await self._asked(session, passed)
        except Exception as error:
            forget_where(error)
            raise

    async def _asked(self, session: ClientSession, passed: Passed) -> int:
        """The status of the original's answer.

        Raises
        ------
        DeclinedError
            It has not taken the request.
        ClientError, TimeoutError
            It has not answered.
        """
        scope = passed.scope
        url = self._original + _target(scope["raw_path"], scope["query_string"])
        async with session.request(
            scope["method"], URL(url, encoded=True), data=passed.body or None, headers=self._headers(passed),
            allow_redirects=False,
        ) as response:  # fmt: skip
            with suppress(ClientError, TimeoutError):
                await response.read()  # only so that the connection can be used again
            if response.status >= 500 or response.status in AWAY:
                raise DeclinedError(response.status)
            return response.status

    def _headers(self, passed: Passed) -> list[tuple[str, str]]:
        """The headers for the original."""
        named = {b"connection"}
        for name, value in passed.scope["headers"]:
            if name == b"connection":
                named.update(each.strip().lower() for each in value.split(b","))
        found = []
        for name, value in passed.scope["headers"]:
            if name in _LEFT_OUT or name in named or (name == b"authorization" and _OUR_KEY in value):
                continue
            kept = self._allowed(value) if name == b"cookie" else _text(value)
            if kept:
                found.append((name.decode("latin-1"), kept))
        if passed.address:
            found.append(("X-Forwarded-For", passed.address))
        return [*found, ("Via", _VIA)]

    def _allowed(self, cookies: bytes) -> str:
        pairs = (pair.strip() for pair in _text(cookies).split(";"))
        return "; ".join(pair for pair in pairs if self._cookies.match(pair.partition("=")[0]))

    def _note(self, error: Exception) -> None:
        """Say that the original does not take requests, where it is news."""
        if isinstance(error, DeclinedError) and error.status not in AWAY:
            return  # perhaps the request's own fault, of which there may be many
        if self._reached:
            self._reached = False
            why = f"it answers {error.status}" if isinstance(error, DeclinedError) else type(error).__name__
            logger.warning("the original collector of %s does not take requests: %s", self._tracker, why)


def forwarders(originals: Mapping[str, str], settings: ForwardSettings, metrics: Metrics) -> dict[str, Forwarder]:
    """One for each tracker that has an original."""
    return {tracker: Forwarder(tracker, original, settings, metrics) for tracker, original in originals.items()}


def _again(error: BaseException) -> bool:
    """Whether a request was surely, or as good as surely, not taken: browsers repeat on a broken connection, too."""
    return isinstance(error, DeclinedError) or (isinstance(error, ClientConnectionError) and not is_late(error))


def _target(path: bytes, query: bytes) -> str:
    """Path and query as they came; bytes that an address cannot hold are escaped.

    >>> _target(b"/i", b"e=pv&page=%zz\\xe9"), _target(b"/i", b"")
    ('/i?e=pv&page=%zz%E9', '/i')
    """
    target = b"%b?%b" % (path, query) if query else path
    return quote_from_bytes(target, safe=_ASCII)


def _text(value: bytes) -> str:
    """A header's value so that aiohttp, which writes UTF-8, writes the same bytes where they are UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
