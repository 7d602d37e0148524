"""What a hit of Matomo holds: requests in its query, its form body or, many at once, in JSON, and their values.

Only the few parameters that are looked at are decoded: a browser's request has forty.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import msgspec

from features.events import hash64
from serving.collect import GIF, Hit, Refused
from serving.collect.carts import Product
from serving.collect.forms import unescaped
from serving.http.call import Reply

TEXT_LIMIT: Final = 512
# As many as other ways in take at once; Matomo's importer of logs sends 200.
MOST_REQUESTS: Final = 1_000
_DAY_MS: Final = 86_400_000


class UselessError(Exception):
    """A request that gives no event; reason: in words of ours; invalid: whether Matomo would refuse it."""

    def __init__(self, reason: str, *, invalid: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.invalid = reason, invalid


class Parameters(dict[str, str]):
    """The parameters of a request as they were sent, to be decoded by `text_of`; text: all of them."""

    def __init__(self, text: str) -> None:
        parts = text.split("&")
        try:
            super().__init__([part.split("=", 1) for part in parts])  # type: ignore[misc]
        except ValueError:  # one has no value
            super().__init__([part.partition("=")[::2] for part in parts])
        self.text = text


class Sent(NamedTuple):
    """What a hit holds. many: it is a bulk request; silent: no pixel and no JSON is wanted; token: of who imports."""

    requests: list[Parameters]
    many: bool
    silent: bool
    token: str


class Item(NamedTuple):
    """A product of a cart or an order."""

    item: str
    category: str
    price: float
    quantity: float

    def hashed(self) -> Product:
        """The same without its texts."""
        return Product(hash64(self.item), hash64(self.category), self.price, self.quantity)


def requests_of(hit: Hit) -> Sent:
    """The requests of a hit.

    Raises
    ------
    Refused
        There is none, or the body is broken.
    """
    body = hit.body.strip()
    if body[:1] == b"{":
        return _many(body)
    text = hit.query
    if body:
        text = f"{text}&{body.decode('utf-8', 'replace')}" if text else body.decode("utf-8", "replace")
    if not text:
        raise Refused("no parameters", Reply(b"image/gif", GIF, 400))
    sent = Parameters(text)
    return Sent([sent], False, sent.get("send_image") == "0", text_of(sent, "token_auth"))


def _many(body: bytes) -> Sent:
    try:
        wire = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise broken("no JSON") from None
    found = wire.get("requests")
    if not isinstance(found, list) or not found:
        raise broken("no requests")
    if len(found) > MOST_REQUESTS:
        raise broken("too many requests")
    token, silent = wire.get("token_auth"), str(wire.get("send_image", "")) in ("0", "False")
    return Sent([_one(each) for each in found], True, silent, token if isinstance(token, str) else "")


def _one(found: Any) -> Parameters:
    """A request of many: an address whose query counts, or an object."""
    if isinstance(found, str):
        return Parameters(found.partition("?")[2] or found)
    values = found if isinstance(found, Mapping) else {}
    return Parameters(urlencode({key: _plain(value) for key, value in values.items() if value is not None}))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return str(value) if isinstance(value, str | int | float) else msgspec.json.encode(value).decode()


def broken(reason: str) -> Refused:
    """What a bulk request is refused with."""
    return Refused(reason, Reply(b"application/json", b'{"status":"error","tracked":0,"invalid":0}', 400))


def text_of(sent: Mapping[str, str], name: str, longest: int | None = TEXT_LIMIT) -> str:
    """A parameter's value, empty if it did not come; cut where it is too long to be one.

    Clients in JavaScript write what they have not got as "undefined".
    """
    value = sent.get(name)
    if not value or value == "undefined":
        return ""
    return unescaped(value)[:longest]


def number_of(value: Any) -> float | None:
    """A number that is none below zero; None for anything else: matomo.js sends the text "undefined".

    >>> number_of("79.9"), number_of("undefined"), number_of(-1)
    (79.9, None, None)
    """
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) and found >= 0 else None


def time_of(sent: Mapping[str, str], received_ms: int, *, trusted: bool) -> int | None:
    """When it happened, ms UTC, if the request says so: seconds, or text like 2026-01-31 12:00:00. None: it came then.

    Raises
    ------
    UselessError
        It happened more than a day ago, and who sends it is not trusted.
    """
    text = text_of(sent, "cdt")
    if not text:
        return None
    try:
        moment = _moment_ms(text)
    except (ValueError, OverflowError):
        return None
    if moment > received_ms:
        return None
    if received_ms - moment > _DAY_MS and not trusted:
        raise UselessError("an old time without a token", invalid=True)
    return moment


def _moment_ms(text: str) -> int:
    if text.replace(".", "", 1).isdecimal():
        return round(float(text) * 1000)
    moment = datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def category_of(text: str) -> str:
    """The first of a product's categories: a text, or a JSON array of some.

    >>> category_of("Shoes"), category_of('["Shoes","Sale"]')
    ('Shoes', 'Shoes')
    """
    if not text.startswith("["):
        return text[:TEXT_LIMIT]
    try:
        return _first(msgspec.json.decode(text))
    except (msgspec.DecodeError, RecursionError):
        return ""


def items_of(text: str) -> list[Item]:
    """The products of `ec_items`: arrays of id, name, category or categories, price, quantity.

    Raises
    ------
    UselessError
        It is no JSON array of them.

    >>> items_of('[["SKU-1","Red shoe",["Shoes","Sale"],79.9,2]]')
    [Item(item='SKU-1', category='Shoes', price=79.9, quantity=2.0)]
    """
    if not text:
        return []
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise UselessError("bad ec_items")
    return [_item(each) for each in found if isinstance(each, list) and each]


def _item(found: list[Any]) -> Item:
    sku, name, category, price, quantity, *_ = (*found, None, None, None, None)
    wanted = number_of(quantity)
    # as in the history: a quantity that is not told is one
    return Item(
        _first(sku) or _first(name), _first(category), number_of(price) or 0.0, 1.0 if wanted is None else wanted
    )


def _first(found: Any) -> str:
    """A value as text, of several the first."""
    if isinstance(found, list):
        found = next((each for each in found if each), "")
    return str(found)[:TEXT_LIMIT] if isinstance(found, str | int | float) else ""
