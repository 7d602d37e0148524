"""Queries and url-encoded forms, of which a tracker looks at a few fields."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote_plus


def fields(form: str, wanted: Mapping[str, str]) -> dict[str, str]:
    """Of a query or url-encoded form the wanted fields under our names for them; the first of those with one name.

    Only what is wanted is decoded: trackers send some thirty fields, and decoding them all takes 30 us.

    >>> fields("dl=https%3A%2F%2Fa%2F&sr=1x1&dt=A+b", {"dl": "url", "dt": "title"})
    {'url': 'https://a/', 'title': 'A b'}
    """
    found: dict[str, str] = {}
    for pair in form.split("&"):
        key, _, value = pair.partition("=")
        name = wanted.get(key)
        if name is not None and value and name not in found:
            if "%" in value or "+" in value:
                value = unquote_plus(value)
            found[name] = value
    return found
