"""A visitor's rights: to see what is held, to have it erased, to object to automated decisions.

A visitor is who has a token of one of their sessions; an operator with a secret key names one as the tracker does.
"""

from __future__ import annotations

import time
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from serving.access import refuse_pages
from serving.held import held_by
from serving.http.call import Call, Handler, Reply
from serving.http.events import JSON, encode
from serving.intake import TEXT_LIMIT
from serving.problems import Problem
from serving.sessions import Objection, key_of

ME: Final = "/v1/visitors/me"
_BEARER: Final = b"bearer "
_OURS: Final = "lotse_"
Content = TypeVar("Content")


class Decisions(msgspec.Struct, forbid_unknown_fields=True):
    """Whether automated decisions may be made about a visitor: scores of models."""

    automated: bool


class Named(msgspec.Struct, forbid_unknown_fields=True):
    """A visitor, by the tracker's id."""

    visitor: Annotated[str, Meta(min_length=1, max_length=TEXT_LIMIT)]


_EXPECTED: Final[dict[type, str]] = {
    Decisions: '{"automated": true} or {"automated": false}',
    Named: f'{{"visitor": "<id>"}} with the tracker\'s id, of 1 to {TEXT_LIMIT} characters',
}


class Erased(msgspec.Struct):
    """How much of each was erased: records, sessions that waited to be handed on, handed-on rows, buffered events,
    messages to others that were not delivered.
    """

    records: int
    waiting: int
    handed_on: int
    buffered: int
    undelivered: int


async def show(call: Call) -> Reply:
    """All that is held of the visitor with this token."""
    return Reply(JSON, encode(await held_by(call.engine).show([_visitor(call)])))


async def erase(call: Call) -> Reply:
    """Erase it."""
    return Reply(JSON, encode(await held_by(call.engine).erase([_visitor(call)])))


async def decide(call: Call) -> Reply:
    """Note whether automated decisions may be made about the visitor with this token."""
    engine, visitor, body = call.engine, _visitor(call), await call.body()
    decisions = _read(body, Decisions)
    objection = Objection(key_of(visitor), objects=not decisions.automated)
    await engine.outage.ask(lambda: engine.store.apply([objection]))
    if not objection.found:
        raise Problem(404, "nothing is held of this visitor, so nothing can be noted; send an event first")
    return Reply(JSON, encode(decisions))


async def show_named(call: Call) -> Reply:
    """All that is held of the visitor in the body."""
    return Reply(JSON, encode(await held_by(call.engine).show(await _visitors(call))))


async def erase_named(call: Call) -> Reply:
    """Erase it."""
    return Reply(JSON, encode(await held_by(call.engine).erase(await _visitors(call))))


ROUTES: Final[dict[str, dict[str, Handler]]] = {
    ME: {"GET": show, "DELETE": erase},
    f"{ME}/decisions": {"POST": decide},
    "/v1/visitors/export": {"POST": show_named},
    "/v1/visitors/erase": {"POST": erase_named},
}


def _visitor(call: Call) -> int:
    """The visitor whose token came.

    Raises
    ------
    Problem
        401: none came, or one that is not ours.
    """
    token = call.query("token").get("token", [""])[-1]
    header = call.header(b"authorization")
    if not token and header[: len(_BEARER)].lower() == _BEARER:
        token = header[len(_BEARER) :].decode("latin-1").strip()
    if not token:
        raise Problem(
            401,
            "no session token; send what POST /v1/events answered as `session`, as 'Authorization: Bearer <token>' or "
            "?token=<token>",
            headers=[(b"www-authenticate", b"Bearer")],
        )
    if token.startswith(_OURS):
        raise Problem(
            401, "this is a key of the API, not a session's token; with a secret one use POST /v1/visitors/export"
        )
    return call.engine.looks.opened(token)[0]


async def _visitors(call: Call) -> list[int]:
    """Every pseudonym of the visitor that the body names, by which anything can be found."""
    refuse_pages(call)
    call.query()
    named = _read(await call.body(), Named)
    return call.engine.pseudonyms.all(named.visitor, time.time_ns() // 1_000_000)


def _read(body: bytes, kind: type[Content]) -> Content:
    """The content of a body.

    Raises
    ------
    Problem
        400, 422: it is not what is expected; nothing of it is repeated.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError:
        raise Problem(422, f"the body is not as expected: {_EXPECTED[kind]}, and no other field") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Problem(400, "the body is not JSON") from None
