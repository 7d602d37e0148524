"""GrowthBook's own endpoints: remote evaluation, with which no rule leaves the service, and features for its SDKs.

The `id` of the attributes is the session's token, as for OFREP; paths end with an API key, as with GrowthBook's client
keys, or with anything where no keys are needed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from serving.experiments.sdks import for_sdks
from serving.http.call import Call, Reply
from serving.http.events import JSON, encode
from serving.http.ofrep import MOST_ATTRIBUTES, NOT_MODIFIED, flags_for, is_secret
from serving.problems import Problem

EVAL: Final = "/api/eval/{client_key}"
FEATURES: Final = "/api/features/{client_key}"


class Evaluation(msgspec.Struct):
    """What an SDK asks: attributes, of which `id` says who; the rest of GrowthBook's payload is not needed."""

    attributes: dict[str, Any] = {}


_decode = msgspec.json.Decoder(Evaluation).decode


async def evaluate(call: Call) -> Reply:
    """Every feature, evaluated: each is a default value without rules.

    Raises
    ------
    Problem
        400, 422: the body cannot be read, or does not say who.
    """
    try:
        attributes = _decode(await call.body()).attributes
    except msgspec.ValidationError as error:
        raise Problem(422, f'the body: {error}; expected {{"attributes": {{"id": "<session token>"}}}}') from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, f"the body is not JSON: {error}") from None
    target = attributes.pop("id", "")
    if not isinstance(target, str) or len(attributes) > MOST_ATTRIBUTES:
        raise Problem(422, f"attributes: expected the session's token as id, and at most {MOST_ATTRIBUTES} others")
    flags, _ = await flags_for(call, target, attributes, ())
    features = {key: {"defaultValue": flag.value} for key, flag in flags.items()}
    return Reply(JSON, encode({"status": 200, "features": features}))


async def features(call: Call) -> Reply:
    """Features for SDKs that evaluate by themselves, as far as they can; not again for the ETag of what they have."""
    experiments, secret = call.engine.experiments, is_secret(call)
    tag = b'"%s-%s"' % (experiments.configuration.version.encode(), b"secret" if secret else b"public")
    headers = ((b"etag", tag),)
    if call.header(b"if-none-match") == tag:
        return Reply(JSON, b"", NOT_MODIFIED, headers)
    updated = datetime.fromtimestamp(experiments.written_ms / 1000, UTC).isoformat(timespec="milliseconds")
    content = for_sdks(experiments.configuration, secret=secret)
    body = {"status": 200, **content, "dateUpdated": updated.replace("+00:00", "Z")}
    return Reply(JSON, encode(body), headers=headers)
