"""What Adobe's events are in our words: names, products, and which records an event makes.

In: names of Adobe Analytics' shopping events and its kinds of links, entries of its product list. Out: records of our
columns. The history's reader and the live adapter share it, so that an event is the same in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

Record = dict[str, Any]

# Kinds of hit and Adobe's shopping events; a shop's own (`event12`) are mapped in [sources.adobe.events].
EVENTS: Final = {
    "custom_link": "click",
    "exit_link": "click",
    "download_link": "file_download",
    "media_start": "video_start",
    "media_update": "video_progress",
    "media_close": "video_complete",
    "media_ad": "custom",
    "survey": "custom",
    "prodView": "view_item",
    "prodViewList": "view_item_list",
    "scOpen": "add_to_cart",
    "scAdd": "add_to_cart",
    "scRemove": "remove_from_cart",
    "scView": "view_cart",
    "scCheckout": "begin_checkout",
}
PURCHASE: Final = "purchase"  # is our name, too
SHOPPING: Final = frozenset({PURCHASE, "prodView", "scOpen", "scCheckout", "scAdd", "scRemove", "scView"})
_PER_ITEM: Final = frozenset({PURCHASE, "scOpen", "scAdd", "scRemove"})
_WITH_VALUE: Final = frozenset({PURCHASE, "scCheckout", "scView"})


@dataclass(frozen=True)
class Product:
    """An entry of a product list: `category;product;quantity;price;...`, the price being that of the whole line."""

    category: str
    item: str
    quantity: str
    total: str

    def record(self) -> Record:
        """Our columns, with the price of one unit."""
        try:
            price: object = float(self.total) / (float(self.quantity or 1) or 1.0)
        except ValueError:
            price = self.total or None  # refused with its row later on
        return {"item": self.item, "category": self.category, "price": price, "quantity": self.quantity or None}


def products(text: str) -> list[Product]:
    """The entries of a product list that name a product.

    >>> products("Shoes;Runner^, red;2;59.90;event5=3;eVar1=x,;Socks;10;29.99")[0].item
    'Runner, red'
    """
    # a caret stands before a separator that is part of a value
    kept = {"^^": "\0", "^,": "\1", "^;": "\2", "^=": "="}
    for escaped, mark in kept.items():
        text = text.replace(escaped, mark)

    def value(cell: str) -> str:
        return cell.replace("\0", "^").replace("\1", ",").replace("\2", ";").strip()

    found = []
    for entry in text.split(","):
        category, item, quantity, total = (value(cell) for cell in (*entry.split(";"), "", "", "", "")[:4])
        if item:
            found.append(Product(category, item, quantity, total))
    return found


def in_order(kind: str, names: Sequence[str]) -> list[str]:
    """What happened in one hit, the kind of hit first.

    >>> in_order("page_view", ["scOpen", "scAdd"]), in_order("custom_link", ["scAdd"])
    (['page_view', 'scAdd'], ['scAdd'])
    """
    found = list(names)
    if "scAdd" in found and "scOpen" in found:
        found.remove("scOpen")  # the cart was opened by what was put in
    # a custom link is how a page reports an event without a page view
    return found if kind == "custom_link" and found else [kind, *found]


def records(name: str, found: list[Product], currency: str | None, value: float | None = None) -> list[Record]:
    """An event's own columns, a record for each product where it is about each.

    value: of the event, if it is known better than by what its products come to.
    """
    if name not in SHOPPING:
        return [{"name": name}]
    if name not in _WITH_VALUE:
        value = None
    elif value is None:
        value = _total(found)
    record: Record = {"name": name, "currency": currency or None, "value": value}
    if name == "prodView" and len(found) > 1:
        return [record | {"name": "prodViewList", "category": found[0].category}]
    if name in _PER_ITEM and found:
        return [record | {"value": value if not place else None} | each.record() for place, each in enumerate(found)]
    return [record | found[0].record()] if name == "prodView" and found else [record]


def _total(found: list[Product]) -> float | None:
    """What the products come to; None where the list has no prices."""
    try:
        totals = [float(each.total) for each in found if each.total]
    except ValueError:
        return None  # the price itself is refused later on
    return sum(totals) if totals else None
