"""How a call is sent and what its answer means, for both clients: headers, compression, refusals, when to try again."""

from __future__ import annotations

import gzip
import os
import random
from typing import Any, Final, TypeVar

import httpx
import msgspec
from tenacity import RetryCallState, retry_if_exception, stop_after_attempt

from lotse_client.calls import Call
from lotse_client.errors import LotseError, NotEvaluated, NotModified, Problem, Refused, Unreachable

T = TypeVar("T")

URL: Final = "http://localhost:3000"
_PASSES: Final = frozenset({408, 409, 429, 502, 503, 504})
_COMPRESSED_BYTES: Final = 10_000
_LONGEST_SECONDS: Final = 10.0
_FIRST_SECONDS: Final = 0.1


def address(url: str | None) -> str:
    """Where the service is: as given, or `LOTSE_URL`."""
    return (url or os.environ.get("LOTSE_URL") or URL).rstrip("/")


def headers_of(key: str | None) -> dict[str, str]:
    """Those of every request; the key as given, or `LOTSE_KEY`."""
    shown = key if key is not None else os.environ.get("LOTSE_KEY", "")
    return {"authorization": f"Bearer {shown}"} if shown else {}


def request(call: Call[Any], request_id: str) -> dict[str, Any]:
    """The arguments of httpx' `build_request`."""
    headers, body = dict(call.headers), call.body
    if body is not None:
        headers["content-type"] = call.content_type
        if len(body) > _COMPRESSED_BYTES:
            headers["content-encoding"], body = "gzip", gzip.compress(body, 1)
    if call.token:
        headers["authorization"] = f"Bearer {call.token}"
    if request_id:
        headers["x-request-id"] = request_id
    return {
        "method": call.method, "url": call.path, "params": list(call.query), "headers": headers, "content": body,
    }  # fmt: skip


def answer(call: Call[T], response: httpx.Response) -> T:
    """What a response, which was read, says.

    Raises
    ------
    NotModified
        It is what `if_none_match` names.
    Refused
        It is no answer.
    """
    if response.status_code == httpx.codes.OK:
        try:
            return call.read(response.content, response.headers)
        except msgspec.DecodeError as error:
            raise LotseError(f"the service answers {call.path} otherwise than this client knows: {error}") from None
    if response.status_code == httpx.codes.NOT_MODIFIED:
        raise NotModified("it is what if_none_match names")
    raise _refused(response)


def unreachable(error: httpx.HTTPError) -> Unreachable:
    """Of an error of httpx; it names no address, which may hold a token."""
    return Unreachable(f"the service did not answer: {type(error).__name__}")


def _refused(response: httpx.Response) -> Refused:
    after, code = response.headers.get("retry-after", ""), ""
    seconds = int(after) if after.isdigit() else 0
    try:
        problem = msgspec.json.decode(response.content, type=Problem)
    except msgspec.DecodeError:
        title, detail = response.reason_phrase, ""
        try:
            told = msgspec.json.decode(response.content, type=NotEvaluated)
            code, title, detail = told.error_code, told.error_code, told.error_details
        except msgspec.DecodeError:
            pass  # a proxy's own words
        name = response.headers.get("x-request-id", "")
        problem = Problem("about:blank", title, response.status_code, detail, name)
    return Refused(problem, code, seconds)


def retrying(call: Call[Any], tries: int) -> dict[str, Any]:
    """The arguments of tenacity's `Retrying`: only what has its effect once is sent again, not before `Retry-After`."""
    return {
        "retry": retry_if_exception(passes),
        "stop": stop_after_attempt(tries if call.repeatable else 1),
        "wait": _wait,
        "reraise": True,
    }


def passes(error: BaseException) -> bool:
    """Whether the same may go well later."""
    return isinstance(error, Unreachable) or (isinstance(error, Refused) and error.status in _PASSES)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    after = error.retry_after_seconds if isinstance(error, Refused) else 0
    return min(max(backoff(state.attempt_number), after), _LONGEST_SECONDS)


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures: twice as long each time, drawn at random."""
    return min(_FIRST_SECONDS * 2 ** (failures - 1), _LONGEST_SECONDS) * random.uniform(0.5, 1)
