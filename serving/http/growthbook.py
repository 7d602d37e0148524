"""GrowthBook's remote evaluation: flags for its SDKs without a rule leaving the service.

The `id` of the attributes is the session's token, as for OFREP; the path ends with an API key, as GrowthBook's client
keys do, or with anything where no keys are needed.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from serving.http.call import Call, Reply
from serving.http.events import JSON, encode
from serving.http.ofrep import MOST_ATTRIBUTES, flags_for
from serving.problems import Problem

PREFIX: Final = "/api/eval/"
EVAL: Final = f"{PREFIX}{{client_key}}"


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
