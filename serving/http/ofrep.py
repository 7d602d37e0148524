"""OFREP 0.3, OpenFeature's protocol: flags for any of its SDKs.

The targeting key is the token of a session: its flags know its scores and its features, and its experiments assign. A
shop's server, with a secret key, may name the visitor as the tracker does instead. For anybody else flags are what the
context alone says, and no experiment assigns anything, because nobody could tell what came of it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from serving.experiments.flags import Flag
from serving.http.call import Call, Reply
from serving.http.events import JSON, encode
from serving.http.ofrep_stream import event_streams
from serving.problems import Problem

if TYPE_CHECKING:
    from serving.requests import View

FLAGS: Final = "/ofrep/v1/evaluate/flags"
FLAG: Final = f"{FLAGS}/{{key}}"
NOT_MODIFIED: Final = 304
# Of the context: arms by experiment that a person tests; only with a secret key.
FORCED: Final = "lotse.arms"
MOST_ATTRIBUTES: Final = 100
# Of flags without an arm: Python's provider wants a variant of every flag.
_VARIANTS: Final = {"STATIC": "default", "TARGETING_MATCH": "targeted"}
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class _BadContextError(Exception):
    """A request that OFREP has an error for: its code, and what was expected."""

    def __init__(self, code: str, details: str, status: int = 400) -> None:
        super().__init__(details)
        self.code, self.details, self.status = code, details, status


async def one(call: Call) -> Reply:
    """One flag."""
    key = call.rest
    try:
        if key not in call.engine.experiments.configuration.ruleset.keys:
            raise _BadContextError("FLAG_NOT_FOUND", "no such flag; flags are defined in configs/experiments.json", 404)
        flags, _ = await _evaluated(call, [key])
    except _BadContextError as error:
        return _refused(error, {"key": key, "metadata": {}})
    # Java's provider takes an answer about one flag without metadata for an error
    metadata = {"configuration": call.engine.experiments.configuration.version}
    return Reply(JSON, encode({**_told(key, flags[key]), "metadata": metadata}))


async def many(call: Call) -> Reply:
    """All flags, and where a page hears that a session's have changed; not again for the ETag of what has not.

    What the stream has told, a client repeats in the query (`flagConfigEtag`): it gets how things are now in any case.
    """
    try:
        flags, view = await _evaluated(call, ())
    except _BadContextError as error:
        return _refused(error, {})
    configuration = call.engine.experiments.configuration
    metadata: dict[str, str | float] = {"configuration": configuration.version}
    if view is not None:
        metadata["events"] = view.events
    content: dict[str, Any] = {"flags": [_told(key, flag) for key, flag in flags.items()], "metadata": metadata}
    models = encode(view.models if view is not None else {})
    tag = b'"%b"' % hashlib.blake2b(encode(content) + models, digest_size=12).hexdigest().encode()
    headers = ((b"etag", tag),)
    if call.header(b"if-none-match") == tag:
        return Reply(JSON, b"", NOT_MODIFIED, headers)
    if view is not None and (streams := event_streams(call, view)):
        content["eventStreams"] = streams
    return Reply(JSON, encode(content), headers=headers)


async def _evaluated(call: Call, keys: Sequence[str]) -> tuple[dict[str, Flag], View | None]:
    context = _context(await call.body())
    target = context.pop("targetingKey", None)
    if not isinstance(target, str) or not target:
        raise _BadContextError(
            "TARGETING_KEY_MISSING",
            "context.targetingKey: expected the session's token, of an answer to its events",
        )
    forced = context.pop(FORCED, None)
    if forced is not None:
        _check_forced(forced, call.engine.experiments.configuration.trials, secret=is_secret(call))
    return await flags_for(call, target, context, keys, forced)


async def flags_for(
    call: Call, target: str, context: Mapping[str, Any], keys: Sequence[str], forced: Mapping[str, str] | None = None
) -> tuple[dict[str, Flag], View | None]:
    """Flags of whom a request names: a session by its token, with a secret key a visitor by the tracker's id."""
    engine, view = call.engine, None
    try:
        view = await engine.looks.view(*engine.looks.opened(target))
    except Problem:
        if is_secret(call):
            view = await engine.looks.look_at(target)
    if view is None:
        return engine.experiments.without_session(context, keys), None
    return await engine.looks.evaluated(view, keys, time.time_ns() // 1_000_000, context, forced)


def is_secret(call: Call) -> bool:
    """Whether who asks may do everything: with a secret key, or where no keys are needed."""
    return call.admission.key is None or call.admission.key.kind == "secret"


def _context(body: bytes) -> dict[str, Any]:
    try:
        content = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _BadContextError("PARSE_ERROR", f"the body is no JSON object: {error}") from None
    context = content.get("context", {})
    if not isinstance(context, dict) or len(context) > MOST_ATTRIBUTES:
        raise _BadContextError("INVALID_CONTEXT", f"context: expected at most {MOST_ATTRIBUTES} attributes")
    return context


def _check_forced(forced: Any, trials: Mapping[str, Any], *, secret: bool) -> None:
    if not secret:
        raise _BadContextError("INVALID_CONTEXT", f"context.{FORCED}: arms are chosen with a secret key only")
    if not isinstance(forced, dict):
        raise _BadContextError("INVALID_CONTEXT", f"context.{FORCED}: expected arms by experiment")
    for key, arm in forced.items():
        if key not in trials:
            raise _BadContextError("INVALID_CONTEXT", f"context.{FORCED}: no such experiment runs")
        arms = trials[key].definition.arms
        if arm not in arms:
            raise _BadContextError("INVALID_CONTEXT", f"context.{FORCED}.{key}: expected one of {', '.join(arms)}")


def _told(key: str, flag: Flag) -> dict[str, Any]:
    variant = flag.variant or _VARIANTS.get(flag.reason, "none")
    told: dict[str, Any] = {"key": key, "reason": flag.reason, "variant": variant}
    if flag.value is not None:
        told["value"] = flag.value
    return told


def _refused(error: _BadContextError, about: Mapping[str, Any]) -> Reply:
    return Reply(JSON, encode({**about, "errorCode": error.code, "errorDetails": error.details}), error.status)
