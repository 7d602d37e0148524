"""Query strings: only what is known is taken, so that a misspelt wish is told instead of being left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qs

from serving.problems import Problem

# sendBeacon and EventSource cannot set headers: the gate reads it, on every path
_KEY: Final = "key"


def parse(query: bytes, known: Sequence[str]) -> dict[str, list[str]]:
    """The values of each parameter.

    Raises
    ------
    Problem
        422: a parameter that is not known, or a query that cannot be read.
    """
    if not query:
        return {}
    try:
        found = parse_qs(query.decode("latin-1"), keep_blank_values=True, strict_parsing=False, max_num_fields=100)
    except ValueError:
        raise Problem(422, "the query string has too many parameters; at most 100") from None
    for name in found:
        if name not in known and name != _KEY:
            allowed = f"known: {', '.join(known)}" if known else "none is known here"
            raise Problem(422, f"unknown query parameter {name[:80]!r}; {allowed}")
    return found


def switch(found: dict[str, list[str]], name: str) -> bool:
    """Whether `name=true`.

    Raises
    ------
    Problem
        422: it is neither true nor false.
    """
    value = found.get(name, ["false"])[-1]
    if value not in ("true", "false"):
        raise Problem(422, f"query parameter {name}: found {value[:80]!r}, expected true or false")
    return value == "true"
