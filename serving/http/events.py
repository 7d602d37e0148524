"""POST /v1/events: requests that are ready together go through the engine together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from serving.explain import explain
from serving.http.call import Call, Reply
from serving.http.idempotency import Claim, Settlement, name_of
from serving.http.query import switch
from serving.problems import Problem
from serving.requests import Answer, Request
from serving.stores import StoreError

if TYPE_CHECKING:
    from serving.engine import Engine
    from serving.stream import Streams

JSON: Final = b"application/json"
_REPLAYED: Final = ((b"idempotency-replayed", b"true"),)

encode = msgspec.json.Encoder().encode

# A request, and whom to tell when it has its answer or its problem.
_Waiting = tuple[Request, Callable[[], None]]


class Wanted(NamedTuple):
    """What is asked for beside the folding: scores, and the keys of flags (none of them: all; None: no flags)."""

    scored: bool = True
    flags: Sequence[str] | None = None


SCORES: Final = Wanted()
_NOTHING: Final = Wanted(scored=False)


def wanted_by(engine: Engine, query: bytes) -> Wanted | None:
    """What a query asks for if it is one of those that come all the time: parsing takes as long as an event."""
    if not query:
        return SCORES
    if query == b"scores=none":
        return _NOTHING
    flags = engine.experiments.queries.get(query)
    return None if flags is None else Wanted(flags=flags)


class Events:
    """The endpoint of events."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._waiting: list[_Waiting] = []
        self._running: set[asyncio.Task[None]] = set()

    async def post(self, call: Call) -> Reply:
        """Fold the events of the body and answer with their sessions' scores."""
        body = await call.body()
        wanted = wanted_by(call.engine, call.scope["query_string"])
        if wanted is None or b"idempotency-key" in call.headers:
            return await self._special(call, body)
        objected = call.engine.consent.objects(call.headers)
        request = Request(body, objected=objected, scored=wanted.scored, flags=wanted.flags)
        try:
            await self.taken(call.engine, request)
            return Reply(JSON, encoded(request.answer))
        finally:
            if request.many:
                call.admission.brought(len(request.events))

    async def _special(self, call: Call, body: bytes) -> Reply:
        engine, query = call.engine, call.query("scores", "explain", "flags")
        wanted, explained = query.get("scores", ["all"])[-1], switch(query, "explain")
        if wanted not in ("all", "none"):
            raise Problem(422, f"query parameter scores: found {wanted[:80]!r}, expected all or none")
        if explained and wanted == "none":
            raise Problem(422, "explain=true explains scores, and scores=none asks for none; send one of them")
        flags = flags_asked(engine, query)
        if flags is not None and wanted == "none":
            raise Problem(422, "flags depend on scores, and scores=none asks for none; send one of them")
        key = name_of(call.headers[b"idempotency-key"]) if b"idempotency-key" in call.headers else ""
        if key and call.admission.key is not None:
            # no name has a space in it: what two owners of API keys call alike is not the same
            key = f"{call.admission.key.id} {key}"
        objected = engine.consent.objects(call.headers)
        request = Request(body, objected=objected, scored=wanted == "all", explained=explained, key=key, flags=flags)
        headers: tuple[tuple[bytes, bytes], ...] = ()
        try:
            if key:
                replayed = await self._once(engine, request, call.scope["query_string"])
                headers = _REPLAYED if replayed else ()
            else:
                await self.taken(engine, request)
        finally:
            if request.many:
                call.admission.brought(len(request.events))
        if explained:
            answers = request.answer if isinstance(request.answer, list) else [request.answer]
            most = engine.settings.server.explain_features
            for answer, asked in zip(answers, request.asked, strict=True):
                assert answer is not None
                # in a thread: it takes milliseconds, in which others want their scores
                answer.explanations = await asyncio.to_thread(explain, asked, most)
        return Reply(JSON, encoded(request.answer), headers=headers)

    async def _once(self, engine: Engine, request: Request, query: bytes) -> bool:
        """Have the request's effect unless its key has had it; returns whether it had."""
        now, kept_ms = time.time_ns() // 1_000_000, round(engine.settings.server.idempotency_hours * 3_600_000)
        # with a key, or a short body could be found out by trying
        claim = Claim(request.key, engine.secret + query + b"\n" + request.body, now, kept_ms)
        await engine.outage.ask(lambda: engine.store.apply([claim]))
        if claim.outcome == Claim.OTHER:
            raise Problem(422, "this Idempotency-Key was used for another request; send each with a key of its own")
        if claim.outcome == Claim.RUNNING:
            raise Problem(409, "a request with this Idempotency-Key is being worked on", retry_after_seconds=1)
        if claim.outcome == Claim.DONE:
            await engine.looks.recall(request)
            return True
        try:
            # alone: its visits must not be shared with requests of other keys
            later = engine.take([request])
            if later is not None:
                await later
            if request.problem is not None:
                raise request.problem
        except Exception:
            with suppress(StoreError):  # the claim is free again after a while by itself
                await engine.outage.ask(lambda: engine.store.apply([Settlement(claim, folded=False)]))
            raise
        self._told([request])
        with suppress(StoreError):  # sent again, the events are known by their ids
            await engine.outage.ask(lambda: engine.store.apply([Settlement(claim, folded=True)]))
        return False

    def taken(self, engine: Engine, request: Request) -> asyncio.Future[None]:
        """Done when the request has its answer; raises its problem."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def answered() -> None:
            if future.cancelled():
                return
            if request.problem is not None:
                future.set_exception(request.problem)
            else:
                future.set_result(None)

        self.take(engine, request, answered)
        return future

    def take(self, engine: Engine, request: Request, answered: Callable[[], None]) -> None:
        """Have a request answered, and be told when it has its answer or its problem.

        Requests that are ready at the same time are folded and scored together at the end of the loop's turn.
        """
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._take_waiting, engine)
        self._waiting.append((request, answered))

    def _take_waiting(self, engine: Engine) -> None:
        waiting, self._waiting = self._waiting, []
        begin = time.perf_counter()
        try:
            later = engine.take([request for request, _ in waiting])
        except Exception as error:
            later = None
            _failed(waiting, error)
        if later is None:
            self._tell(engine, waiting, begin)
        else:
            task = asyncio.ensure_future(self._tell_later(engine, later, waiting, begin))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _tell_later(self, engine: Engine, later: Awaitable[None], waiting: list[_Waiting], begin: float) -> None:
        try:
            await later
        except Exception as error:
            _failed(waiting, error)
        self._tell(engine, waiting, begin)

    def _tell(self, engine: Engine, waiting: list[_Waiting], begin: float) -> None:
        engine.metrics.latency.add(time.perf_counter() - begin, len(waiting))
        for _, answered in waiting:
            answered()
        if self._streams.listening:
            self._told([request for request, _ in waiting])

    def _told(self, requests: list[Request]) -> None:
        """Wake those who listen to the sessions that went on."""
        for request in requests:
            for visit, _ in request.seats:
                self._streams.wake(visit.key)


def flags_asked(engine: Engine, query: dict[str, list[str]]) -> list[str] | None:
    """The keys of `flags=help,offer`, none of `flags=all` (which means all), None without it.

    Raises
    ------
    Problem
        422: no such flag.
    """
    if "flags" not in query:
        return None
    asked = query["flags"][-1]
    if asked == "all":
        return []
    keys, known = asked.split(","), engine.experiments.configuration.ruleset.keys
    for key in keys:
        if key not in known:
            raise Problem(
                422,
                f"query parameter flags: found {key[:80]!r}, expected all or some of {', '.join(known) or 'none'}",
            )
    return keys


def _failed(waiting: list[_Waiting], error: Exception) -> None:
    for request, _ in waiting:
        request.problem = request.problem or error


def encoded(answer: Answer | list[Answer] | None) -> bytes:
    """What came of a request's events, as it is sent."""
    return encode({"results": answer} if isinstance(answer, list) else answer)
