"""Every operation of the API as data, without any input or output: what is sent, and how the answer is read.

A function is named as its `operationId` in the OpenAPI document; a test goes through the document and compares
parameters, bodies and answers.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

import msgspec

from lotse_client import answers
from lotse_client import experiments as configured
from lotse_client.events import Event

T = TypeVar("T")
Row = Mapping[str, float | None]

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
ARROW: Final = "application/vnd.apache.arrow.stream"
MERGE_PATCH: Final = "application/merge-patch+json"
EVENT_STREAM: Final = "text/event-stream"


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """A request.

    answer: the type of what is read. token: of a session, sent in place of the key. repeatable: whether it has its
    effect once if it is sent twice. read: content and headers (names in lower case) to the answer.
    """

    method: str
    path: str
    answer: Any
    read: Callable[[bytes, Mapping[str, str]], T]
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = JSON
    token: str = ""
    repeatable: bool = True


def events(
    events: Event | Sequence[Event],
    *,
    explain: bool = False,
    flags: str | Sequence[str] = (),
    scores: bool = True,
    idempotency_key: str = "",
) -> Call[list[answers.Answer]]:
    """Fold events; answers in their order. Events without an id are given one: they can be sent again.

    explain: what made each score. flags: "all", or keys. scores: without them the answer is status and count only.
    """
    several = [events] if isinstance(events, Event) else list(events)
    named = [event if event.id else msgspec.structs.replace(event, id=uuid.uuid4().hex) for event in several]
    asked = [] if scores else [("scores", "none")]
    asked += [("explain", "true")] if explain else []
    asked += [("flags", flags if isinstance(flags, str) else ",".join(flags))] if flags else []

    def read(content: bytes, _: Mapping[str, str]) -> list[answers.Answer]:
        return msgspec.json.decode(content, type=_Results).results

    return Call(
        method="POST",
        path="/v1/events",
        answer=_Results,
        read=read,
        query=asked,
        headers={"idempotency-key": idempotency_key} if idempotency_key else {},
        body=msgspec.json.encode(named),
    )


def session(token: str, *, explain: bool = False) -> Call[answers.Answer]:
    """A session scored as of now: idle time counts."""
    return _call("GET", f"/v1/sessions/{_part(token)}", answers.Answer, query=_switch("explain", explain))


def stream(token: str, thresholds: Mapping[str, float] | Sequence[str] = (), *, last_event_id: str = "") -> Call[bytes]:
    """Server-sent events of a session; thresholds: by head, or such as "conversion:0.3", also several of a head."""
    listed = (
        [f"{head}:{value:g}" for head, value in thresholds.items()] if isinstance(thresholds, Mapping) else thresholds
    )
    query = [("threshold", one) for one in listed]
    return _stream(f"/v1/sessions/{_part(token)}/events", query, last_event_id)


def score(rows: Sequence[Row]) -> Call[answers.RowScores]:
    """Scores of feature vectors, each with every feature of `features`."""
    return _call("POST", "/v1/score", answers.RowScores, body=msgspec.json.encode({"rows": rows}))


def score_lines(rows: Iterable[Row]) -> Call[list[dict[str, float]]]:
    """The same for many rows."""

    def read(content: bytes, _: Mapping[str, str]) -> list[dict[str, float]]:
        return msgspec.json.Decoder(dict[str, float]).decode_lines(content)

    body = msgspec.json.Encoder().encode_lines(list(rows))
    return Call(
        method="POST", path="/v1/score", answer=list[dict[str, float]], read=read, body=body, content_type=NDJSON
    )


def score_arrow(table: bytes) -> Call[bytes]:
    """The same for an Arrow stream of record batches, answered by one with a column a head."""
    return Call(method="POST", path="/v1/score", answer=bytes, read=_raw, body=table, content_type=ARROW)


def features() -> Call[answers.Description]:
    """Heads, versions, feature names, and what keeps heads from scoring."""
    return _call("GET", "/v1/features", answers.Description)


def refresh(webhook_secret: str, body: bytes = b"{}") -> Call[answers.Asked]:
    """Have the model registry asked now, signed as MLflow's webhooks are."""
    delivery, timestamp = uuid.uuid4().hex, str(int(time.time()))
    signed = hmac.new(webhook_secret.encode(), b".".join((delivery.encode(), timestamp.encode(), body)), hashlib.sha256)
    headers = {
        "x-mlflow-delivery-id": delivery,
        "x-mlflow-timestamp": timestamp,
        "x-mlflow-signature": "v1," + base64.b64encode(signed.digest()).decode(),
    }
    return _call("POST", "/v1/models/refresh", answers.Asked, body=body, headers=headers)


def mine(token: str) -> Call[answers.Held]:
    """All that is held of the visitor with this session's token."""
    return _call("GET", "/v1/visitors/me", answers.Held, token=token)


def erase_mine(token: str) -> Call[answers.Erased]:
    """Erase it."""
    return _call("DELETE", "/v1/visitors/me", answers.Erased, token=token)


def decisions(token: str, *, automated: bool) -> Call[answers.Decisions]:
    """False: object to automated decisions; scores are the priors until True."""
    body = msgspec.json.encode(answers.Decisions(automated))
    return _call("POST", "/v1/visitors/me/decisions", answers.Decisions, body=body, token=token)


def export(visitor: str) -> Call[answers.Held]:
    """All that is held of a visitor, by the tracker's id."""
    return _call("POST", "/v1/visitors/export", answers.Held, body=msgspec.json.encode({"visitor": visitor}))


def erase(visitor: str) -> Call[answers.Erased]:
    """Erase it."""
    return _call("POST", "/v1/visitors/erase", answers.Erased, body=msgspec.json.encode({"visitor": visitor}))


def flags(
    targeting_key: str,
    context: Mapping[str, Any] | None = None,
    *,
    if_none_match: str = "",
    flag_config_etag: str = "",
    flag_config_last_modified: str = "",
) -> Call[answers.Flags]:
    """All flags over OFREP; targeting_key: the session's token, with a secret key also a visitor's id."""
    told = (("flagConfigEtag", flag_config_etag), ("flagConfigLastModified", flag_config_last_modified))
    return _call(
        "POST",
        "/ofrep/v1/evaluate/flags",
        answers.Flags,
        query=[(name, value) for name, value in told if value],
        body=_context(targeting_key, context),
        headers=_unless(if_none_match),
    )


def flag(key: str, targeting_key: str, context: Mapping[str, Any] | None = None) -> Call[answers.Evaluated]:
    """One flag over OFREP."""
    path = f"/ofrep/v1/evaluate/flags/{_part(key)}"
    return _call("POST", path, answers.Evaluated, body=_context(targeting_key, context))


def refetches(token: str, *, since: str = "", last_event_id: str = "") -> Call[bytes]:
    """Server-sent events that tell when a flag of the session may be another one."""
    return _stream(f"/ofrep/v1/streams/{_part(token)}", [("since", since)] if since else [], last_event_id)


def evaluate(attributes: Mapping[str, Any], *, client_key: str = "sdk") -> Call[answers.SdkValues]:
    """All flags as GrowthBook's remote evaluation has them; attributes: `id` is the session's token.

    client_key: of no meaning beside the client's own key, which goes in a header.
    """
    body = msgspec.json.encode({"attributes": attributes})
    return _call("POST", f"/api/eval/{_part(client_key)}", answers.SdkValues, body=body)


def sdk_features(*, client_key: str = "sdk", if_none_match: str = "") -> Call[answers.SdkFeatures]:
    """Features for GrowthBook's SDKs that evaluate by themselves."""
    path = f"/api/features/{_part(client_key)}"
    return _call("GET", path, answers.SdkFeatures, headers=_unless(if_none_match))


def experiments(history: Sequence[str] = ()) -> Call[configured.ExperimentsState]:
    """What runs, what closed sessions have taught, which arms were stopped; history: whose to tell."""
    query = [("history", key) for key in history]
    return _call("GET", "/v1/experiments/state", configured.ExperimentsState, query=query)


def configuration() -> Call[configured.Running]:
    """The configuration of flags and experiments that runs."""
    return _call("GET", "/v1/experiments", configured.Running)


def replace(content: configured.Configuration, *, dry_run: bool = False, if_match: str = "") -> Call[configured.Pushed]:
    """Have another configuration run; if_match: only if this version runs."""
    return _push("PUT", "/v1/experiments", msgspec.json.encode(content), JSON, dry_run, if_match)


def change(patch: Mapping[str, Any], *, dry_run: bool = False, if_match: str = "") -> Call[configured.Pushed]:
    """The same in parts: a JSON merge patch (RFC 7396), in which None removes a key."""
    return _push("PATCH", "/v1/experiments", msgspec.json.encode(patch), MERGE_PATCH, dry_run, if_match)


def roll_back(version: str = "", *, dry_run: bool = False, if_match: str = "") -> Call[configured.Pushed]:
    """Have a version run again; by default the one before."""
    query = [("version", version)] if version else []
    return _push("POST", "/v1/experiments/rollback", None, JSON, dry_run, if_match, query)


def versions() -> Call[configured.Versions]:
    """What was pushed, the newest first."""
    return _call("GET", "/v1/experiments/versions", configured.Versions)


def version(version: str) -> Call[configured.ConfigurationVersion]:
    """A version with its configuration."""
    return _call("GET", f"/v1/experiments/versions/{_part(version)}", configured.ConfigurationVersion)


def journeys(
    *,
    begin: Sequence[str] = (),
    goal: Sequence[str] = (),
    without: Sequence[str] = (),
    funnel: Sequence[str] = (),
    depth: int | None = None,
    since_ms: int | None = None,
    until_ms: int | None = None,
) -> Call[dict[str, Any]]:
    """Paths, funnels, endings and cohorts over the sessions that were handed on: docs/journeys.md."""
    listed = {"begin": begin, "goal": goal, "without": without, "funnel": funnel}
    query = [(name, one) for name, several in listed.items() for one in several]
    numbers = {"depth": depth, "since_ms": since_ms, "until_ms": until_ms}
    query += [(name, str(number)) for name, number in numbers.items() if number is not None]
    return _call("GET", "/v1/insight/journeys", dict[str, Any], query=query)


def models() -> Call[answers.Models]:
    """How the models are: versions, tests, what became of what they promised, drift, thresholds."""
    return _call("GET", "/v1/insight/models", answers.Models)


def live(order: str = "recent") -> Call[bytes]:
    """Server-sent events of all sessions that run; order: "recent", "idle", or a head, for its highest scores."""
    return _stream("/v1/insight/live", [("list", order)], "")


def openapi() -> Call[dict[str, Any]]:
    """The API's document."""
    return _call("GET", "/v1/openapi.json", dict[str, Any])


def metrics() -> Call[str]:
    """Prometheus metrics of all workers."""
    return _text("/metrics")


def livez() -> Call[str]:
    """The process answers; else `Unreachable`."""
    return _text("/livez")


def readyz() -> Call[str]:
    """Every head scores its golden row; else `Refused` with 503."""
    return _text("/readyz")


class _Results(msgspec.Struct, frozen=True):
    results: list[answers.Answer]


def _call(
    method: str,
    path: str,
    answer: type[T],
    *,
    query: Sequence[tuple[str, str]] = (),
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    content_type: str = JSON,
    token: str = "",
    repeatable: bool = True,
) -> Call[T]:
    tagged = "etag" in getattr(answer, "__struct_fields__", ())

    def read(content: bytes, told: Mapping[str, str]) -> T:
        found = msgspec.json.decode(content, type=answer)
        # msgspec's structs are frozen for users; this one is new
        return msgspec.structs.replace(found, etag=told.get("etag", "")) if tagged else found  # type: ignore[type-var]

    return Call(
        method=method,
        path=path,
        answer=answer,
        read=read,
        query=query,
        headers=headers or {},
        body=body,
        content_type=content_type,
        token=token,
        repeatable=repeatable,
    )


def _push(
    method: str,
    path: str,
    body: bytes | None,
    content_type: str,
    dry_run: bool,
    if_match: str,
    query: Sequence[tuple[str, str]] = (),
) -> Call[configured.Pushed]:
    return _call(
        method,
        path,
        configured.Pushed,
        query=[*query, *_switch("dry_run", dry_run)],
        headers={"if-match": f'"{if_match}"'} if if_match else {},
        body=body,
        content_type=content_type,
        repeatable=dry_run,  # pushed twice it would be refused, or rolled back once more
    )


def _stream(path: str, query: Sequence[tuple[str, str]], last_event_id: str) -> Call[bytes]:
    headers = {"accept": EVENT_STREAM} | ({"last-event-id": last_event_id} if last_event_id else {})
    return Call(method="GET", path=path, answer=bytes, read=_raw, query=query, headers=headers)


def _text(path: str) -> Call[str]:
    return Call(method="GET", path=path, answer=str, read=lambda content, _: content.decode())


def _raw(content: bytes, _: Mapping[str, str]) -> bytes:
    return content


def _part(text: str) -> str:
    return quote(text, safe="")


def _switch(name: str, on: bool) -> list[tuple[str, str]]:
    return [(name, "true")] if on else []


def _context(targeting_key: str, context: Mapping[str, Any] | None) -> bytes:
    return msgspec.json.encode({"context": {**(context or {}), "targetingKey": targeting_key}})


def _unless(etag: str) -> dict[str, str]:
    return {"if-none-match": etag} if etag else {}
