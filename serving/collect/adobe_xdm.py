"""One event as Adobe's client sends it (XDM, or variables of Adobe Analytics), as records of our columns.

What it is, is told in the words of Adobe Analytics, because those are what its data feeds hold: names, products and
prices become records by the code that reads the feeds (`features.sources.adobe_events`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from features.channels import Entry
from features.sources.adobe_events import PURCHASE, SHOPPING, Product, Record, in_order, products, records
from serving.collect.records import BadValueError

# `xdm.commerce`, as Adobe itself translates it for Analytics: its product lists are carts.
COMMERCE: Final = {
    "productViews": "prodView",
    "productListOpens": "scOpen",
    "productListAdds": "scAdd",
    "productListRemovals": "scRemove",
    "productListViews": "scView",
    "checkouts": "scCheckout",
    "purchases": PURCHASE,
    "saveForLaters": "add_to_wishlist",
}
# `xdm.eventType` in lower case, beside those of commerce, page views and links. Others are the shop's own, to be mapped
# in [sources.adobe.events] or [events].
EVENT_TYPES: Final = {
    "web.formfilledout": "form_submit",
    "useraccount.login": "login",
    "useraccount.createprofile": "sign_up",
    "media.sessionstart": "media_start",
    "media.ping": "media_update",
    "media.sessioncomplete": "media_close",
    "media.sessionend": "media_close",
    "media.adstart": "media_ad",
    "decisioning.propositiondisplay": "view_promotion",
    "decisioning.propositioninteract": "select_promotion",
}
NO_STEPS: Final = frozenset({
    "decisioning.propositionfetch", "decisioning.propositiontrigger", "decisioning.propositiondismiss",
    "decisioning.propositionsuppressdisplay",
})  # fmt: skip
# Kinds of link, by `xdm.web.webInteraction.type` and by Analytics' `linkType`.
LINKS: Final = {"download": "download_link", "d": "download_link", "exit": "exit_link", "e": "exit_link"}
_VIEW: Final = "web.webpagedetails.pageviews"
_LINK: Final = "web.webinteraction.linkclicks"
_OFFSET_LIMIT: Final = 18 * 60
_PRODUCTS: Final = 200
_NOTHING: Final[Mapping[str, Any]] = {}


def records_of(
    xdm: Mapping[str, Any], data: Mapping[str, Any], known: Mapping[str, str], entry_of: Callable[[str, str], Entry]
) -> list[Record]:
    """The records of an event: what happened first, then what it adds, a product each where it is about products.

    known: the names that are mapped, the shop's custom events among them. Empty where nothing was done by a visitor.

    Raises
    ------
    BadValueError
        There are too many products.
    """
    kind = str(xdm.get("eventType") or "").lower()
    if kind in NO_STEPS:
        return []
    web = _object(xdm, "web")
    page, link = _object(web, "webPageDetails"), _object(web, "webInteraction")
    commerce, analytics = _object(xdm, "commerce"), _object(_object(data, "__adobe"), "analytics")
    found = _products(xdm, analytics) if analytics or "productListItems" in xdm else []
    if len(found) > _PRODUCTS:
        raise BadValueError("too many products")
    happened = _happened(xdm, kind, commerce, analytics, known)
    what = _kind(kind, xdm, page, link, analytics)
    if not happened and found and what == "page_view":
        happened = ["prodView"]  # Adobe Analytics counts a view of products that no event belongs to
    # without a kind of its own an event is what it adds, as of a link that reports something
    names = in_order(what or "custom_link", happened) if what or happened else ["custom"]
    url = _text(page.get("URL")) or _text(analytics.get("pageURL"))
    entry = entry_of(url, _text(_object(web, "webReferrer").get("URL")) or _text(analytics.get("referrer")))
    campaign = _text(analytics.get("campaign")) or _text(_object(xdm, "marketing").get("trackingCode"))
    order = _object(commerce, "order")
    currency = _text(analytics.get("currencyCode")) or _text(order.get("currencyCode")) or _currency(xdm)
    whole: Record = {
        "time": xdm.get("timestamp"),
        "page": url or (_name(page, analytics) if "page_view" in names else None),
        "channel": entry.channel,
        "campaign": campaign or entry.campaign or None,
        "utc_offset": _utc_offset(xdm),
    }
    bought = _text(order.get("purchaseID")) or _text(analytics.get("purchaseID"))
    made: list[Record] = []
    for name in names:
        for place, said in enumerate(records(name, found, currency, _number(order.get("priceTotal")))):
            # a page that is loaded again reports its order again
            identity = f"purchase {bought}/{place}" if name == PURCHASE and bought else None
            made.append({**whole, **said, "id": identity, "interactive": 0 if made else None})
    return made


def _kind(
    kind: str, xdm: Mapping[str, Any], page: Mapping[str, Any], link: Mapping[str, Any], analytics: Mapping[str, Any]
) -> str:
    """A page view, a link, or what the event calls itself; empty if it says only what it adds."""
    if kind == _VIEW or _counts(page.get("pageViews")):
        return "page_view"
    if kind == _LINK or _counts(link.get("linkClicks")) or analytics.get("linkType"):
        return LINKS.get(_text(link.get("type")) or _text(analytics.get("linkType")), "custom_link")
    if kind.startswith("commerce."):
        return ""
    if kind:
        return EVENT_TYPES.get(kind) or _text(xdm.get("eventType"))
    return "page_view" if analytics.get("pageName") or analytics.get("pageURL") else ""


def _happened(
    xdm: Mapping[str, Any],
    kind: str,
    commerce: Mapping[str, Any],
    analytics: Mapping[str, Any],
    known: Mapping[str, str],
) -> list[str]:
    """Names of shopping events and of the shop's own; Analytics' list replaces XDM's, as Adobe has it."""
    listed = analytics.get("events")
    if isinstance(listed, str):
        entries = (entry.partition("=")[0].partition(":")[0].strip() for entry in listed.split(","))
        happened = [name for name in entries if name in SHOPPING or name in known]
    else:
        happened = []
        if commerce:
            happened += [name for what, name in COMMERCE.items() if what in commerce and _counts(commerce[what])]
        if kind.startswith("commerce."):
            named = COMMERCE.get(_text(xdm.get("eventType")).removeprefix("commerce."))
            if named and named not in happened:
                happened.append(named)
        custom = _object(_object(xdm, "_experience"), "analytics")
        for group in custom.values():
            if isinstance(group, dict):
                happened += [name for name, measure in group.items() if name in known and _counts(measure)]
    if _object(xdm, "siteSearch").get("phrase"):
        happened.append("search")
    return list(dict.fromkeys(happened)) if len(happened) > 1 else happened


def _products(xdm: Mapping[str, Any], analytics: Mapping[str, Any]) -> list[Product]:
    listed = analytics.get("products")
    if isinstance(listed, str):
        return products(",".join(listed.split(",", _PRODUCTS + 1)[: _PRODUCTS + 1]))
    items = xdm.get("productListItems")
    if not isinstance(items, list):
        return []
    return [
        Product(_category(item), named, _text(item.get("quantity")), _text(item.get("priceTotal")))
        for item in items[: _PRODUCTS + 1]
        if isinstance(item, dict) and (named := _text(item.get("SKU")) or _text(item.get("name")))
    ]


def _category(item: Mapping[str, Any]) -> str:
    """As Adobe translates it for Analytics."""
    categories = item.get("productCategories")
    first = categories[0] if isinstance(categories, list) and categories else None
    return _text(item.get("lineItemId")) or (_text(first.get("categoryID")) if isinstance(first, dict) else "")


def _currency(xdm: Mapping[str, Any]) -> str:
    items = xdm.get("productListItems")
    if not isinstance(items, list):
        return ""
    return next((code for item in items if isinstance(item, dict) and (code := _text(item.get("currencyCode")))), "")


def _name(page: Mapping[str, Any], analytics: Mapping[str, Any]) -> str:
    """What a page without an address is called, as in apps."""
    return _text(page.get("name")) or _text(page.get("viewName")) or _text(analytics.get("pageName"))


def _counts(measure: Any) -> bool:
    """Whether a measure says that it happened: some number of times, or once if it does not say how often."""
    return isinstance(measure, dict) and measure.get("value", 1) not in (0, "0", None, "")


def _utc_offset(xdm: Mapping[str, Any]) -> int | None:
    """Minutes ahead of UTC; a browser counts them the other way round."""
    behind = _object(xdm, "placeContext").get("localTimezoneOffset")
    return -behind if isinstance(behind, int) and abs(behind) <= _OFFSET_LIMIT else None


def _number(value: Any) -> float | None:
    try:
        return None if value is None or value == "" else float(value)
    except (TypeError, ValueError):
        return None


def _object(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = parent.get(key)
    return found if isinstance(found, dict) else _NOTHING


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return "" if isinstance(value, dict | list) else str(value)
