"""What can go wrong: the service refuses, has nothing new, or cannot be reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec


class LotseError(Exception):
    """Any error of this package."""


class Unreachable(LotseError):  # noqa: N818  (what it is)
    """Nobody answered, or not in time."""


class NotModified(LotseError):  # noqa: N818  (the status' name)
    """What was asked for is what `if_none_match` names."""


class FieldProblem(msgspec.Struct, frozen=True):
    """What is wrong with one event of an array."""

    index: int
    field: str
    found: str
    expected: str


class Problem(msgspec.Struct, frozen=True):
    """Why a request was refused (RFC 9457). detail: what was found, what is expected, what to do."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: Sequence[FieldProblem] = ()


class NotEvaluated(msgspec.Struct, frozen=True, rename="camel"):
    """Why a flag was not evaluated, in OFREP's words."""

    error_code: Literal["PARSE_ERROR", "TARGETING_KEY_MISSING", "INVALID_CONTEXT", "FLAG_NOT_FOUND"]
    error_details: str
    key: str = ""
    metadata: dict[str, str | float | bool] = {}


class Refused(LotseError):  # noqa: N818  (what it is)
    """The service answered and refused.

    problem: in its own words. code: OFREP's error code, empty elsewhere. retry_after_seconds: when it is worth asking
    again, 0 where it does not say.
    """

    def __init__(self, problem: Problem, code: str = "", retry_after_seconds: int = 0) -> None:
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}")
        self.problem, self.code, self.retry_after_seconds = problem, code, retry_after_seconds

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status
