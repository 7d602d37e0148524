"""The canonical event: the one contract at the entrance of Lotse.

In: nothing. Out: the vocabulary (event names, channels, devices, consent bits), the columns of the events table with
their types and defaults, and the checks every table passes. A missing value is the column's default (0 for hashes and
prices, 1 for a quantity); NaN is always an error, because nobody can tell "unknown" from "broken" afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from xxhash import xxh3_64_intdigest

from features.errors import EventError

# a service has no tables, and starts a second sooner without pandas
if TYPE_CHECKING:
    import pandas as pd

# GA4's recommended event names. A code is the position in this tuple and is stored: append, never reorder.
EVENT_NAMES: Final = (
    "custom",
    "page_view",
    "view_item_list",
    "select_item",
    "view_item",
    "search",
    "add_to_wishlist",
    "add_to_cart",
    "remove_from_cart",
    "view_cart",
    "begin_checkout",
    "add_shipping_info",
    "add_payment_info",
    "purchase",
    "refund",
    "login",
    "sign_up",
    "scroll",
    "click",
    "form_start",
    "form_submit",
    "video_start",
    "video_progress",
    "video_complete",
    "file_download",
    "user_engagement",
    "select_promotion",
    "view_promotion",
    "share",
    "generate_lead",
)
(
    CUSTOM,
    PAGE_VIEW,
    VIEW_ITEM_LIST,
    SELECT_ITEM,
    VIEW_ITEM,
    SEARCH,
    ADD_TO_WISHLIST,
    ADD_TO_CART,
    REMOVE_FROM_CART,
    VIEW_CART,
    BEGIN_CHECKOUT,
    ADD_SHIPPING_INFO,
    ADD_PAYMENT_INFO,
    PURCHASE,
    REFUND,
    LOGIN,
    SIGN_UP,
    SCROLL,
    CLICK,
    FORM_START,
    FORM_SUBMIT,
    VIDEO_START,
    VIDEO_PROGRESS,
    VIDEO_COMPLETE,
    FILE_DOWNLOAD,
    USER_ENGAGEMENT,
    SELECT_PROMOTION,
    VIEW_PROMOTION,
    SHARE,
    GENERATE_LEAD,
) = range(len(EVENT_NAMES))

CHANNELS: Final = ("unknown", "direct", "organic", "paid", "social", "email", "referral", "internal")
DEVICES: Final = ("unknown", "desktop", "mobile", "tablet", "tv", "bot")

# Consent bits. Without MEASURE an event is counted for the running session only; LINK allows visits to be linked.
CONSENT_MEASURE: Final = 1
CONSENT_LINK: Final = 2
CONSENT_PERSONALISE: Final = 4
CONSENTS: Final = {"measure": CONSENT_MEASURE, "link": CONSENT_LINK, "personalise": CONSENT_PERSONALISE}

# Names that a heartbeat or a passive signal carries: not an interaction of the visitor (GA4, Plausible `interactive`).
PASSIVE: Final = frozenset({USER_ENGAGEMENT, SCROLL, VIDEO_PROGRESS, VIEW_PROMOTION})

# Kinds of page, told from the event that opens one; every other event stays on the page that is open.
PAGE_KINDS: Final = ("none", "content", "list", "item", "search", "cart", "checkout", "confirmation")
PAGE_KIND_OF: Final = {
    PAGE_VIEW: 1,
    VIEW_ITEM_LIST: 2,
    VIEW_ITEM: 3,
    SEARCH: 4,
    VIEW_CART: 5,
    BEGIN_CHECKOUT: 6,
    ADD_SHIPPING_INFO: 6,
    ADD_PAYMENT_INFO: 6,
    PURCHASE: 7,
}

DECLARED_SLOTS: Final = 4


class Column(NamedTuple):
    """A column of the events table: numpy dtype, default for a missing value, meaning."""

    dtype: str
    default: float
    meaning: str


# In the order in which a compiled fold takes them.
COLUMNS: Final[Mapping[str, Column]] = {
    "visitor": Column("i8", 0, "keyed pseudonym of the visitor, 64 bits held as a signed integer"),
    "session": Column("i8", 0, "hash of the session id the tracker gave; 0 where sessions are derived from time"),
    "id": Column("i8", 0, "hash of the event's own id, to drop a repeated delivery; 0 where there is none"),
    "time": Column("i8", 0, "milliseconds since 1970, UTC"),
    "name": Column("u1", 0, "position in EVENT_NAMES"),
    "page": Column("i8", 0, "hash of the templated path; 0 for none"),
    "item": Column("i8", 0, "hash of the product id; 0 for none"),
    "category": Column("i8", 0, "hash of the category; 0 for none"),
    "campaign": Column("i8", 0, "hash of the campaign that led here; 0 for none"),
    "price": Column("f8", 0, "unit price in the shop's base currency; 0 for unknown"),
    "quantity": Column("f8", 1, "number of units"),
    "value": Column(
        "f8", 0, "total value in the base currency; of a scroll or heartbeat, the share of the page seen; 0 for unknown"
    ),
    "channel": Column("u1", 0, "position in CHANNELS"),
    "device": Column("u1", 0, "position in DEVICES"),
    "interactive": Column("u1", 1, "1 where the visitor did something, 0 for a heartbeat or passive signal"),
    "consent": Column("u1", CONSENT_MEASURE, "bit set of CONSENTS"),
    "utc_offset": Column("i4", 0, "minutes the visitor's clock is ahead of UTC"),
    "declared_0": Column("f8", 0, "declared preference 0; 0 for none"),
    "declared_1": Column("f8", 0, "declared preference 1; 0 for none"),
    "declared_2": Column("f8", 0, "declared preference 2; 0 for none"),
    "declared_3": Column("f8", 0, "declared preference 3; 0 for none"),
}


class Event(NamedTuple):
    """One event as a compiled fold takes it: the values of COLUMNS, in their order, as Python numbers."""

    visitor: int
    session: int = 0
    id: int = 0
    time: int = 0
    name: int = 0
    page: int = 0
    item: int = 0
    category: int = 0
    campaign: int = 0
    price: float = 0.0
    quantity: float = 1.0
    value: float = 0.0
    channel: int = 0
    device: int = 0
    interactive: int = 1
    consent: int = CONSENT_MEASURE
    utc_offset: int = 0
    declared_0: float = 0.0
    declared_1: float = 0.0
    declared_2: float = 0.0
    declared_3: float = 0.0


_TWO_TO_63: Final = 2**63
_TWO_TO_64: Final = 2**64


def hash64(text: str) -> int:
    """64-bit hash of a public value (page, item, category, event id), signed; 0 is kept for "none".

    XXH3: stable over machines and years, because it is stored in models' tables, and a seventh of the time of BLAKE2b.
    It is no secret and needs no key; who a visitor is goes through `features.pseudonyms` instead.

    >>> hash64("")
    0
    >>> hash64("/product/:id") == hash64("/product/:id") != hash64("/cart")
    True
    """
    if not text:
        return 0
    value = xxh3_64_intdigest(text.encode())
    return value - _TWO_TO_64 if value >= _TWO_TO_63 else value or 1


_TO_TEMPLATE = re.compile(r"[?#\d@%]|://|/$")
_IDENTIFIER = re.compile(r"(?<=/)(?=[^/]*[\d@%])[^/]+")


def page_template(path: str) -> str:
    """A path without what tells visitors apart: no query, fragment or host; `:id` for parts with a digit or `@`.

    >>> page_template("https://shop.example/p/12345?utm_source=x#top")
    '/p/:id'
    >>> page_template("/unsubscribe/jane@example.org/")
    '/unsubscribe/:id'
    """
    if path[:1] == "/" and not _TO_TEMPLATE.search(path):
        return path
    path = path.split("?", 1)[0].split("#", 1)[0]
    if "://" in path:
        path = "/" + path.split("://", 1)[1].partition("/")[2]
    if not path.startswith("/"):
        path = "/" + path
    return _IDENTIFIER.sub(":id", path).rstrip("/") or "/"


def check_events(events: pd.DataFrame) -> pd.DataFrame:
    """The table with every column of COLUMNS in its own type, missing columns at their defaults.

    Only `visitor`, `time` and `name` must be there; `interactive` follows the name where it is absent.

    Raises
    ------
    EventError
        A required column is missing, a column is unknown, or a value lies outside what the column allows.
    """
    table = typed_events(events)
    check_ranges(table)
    return table


def typed_events(events: pd.DataFrame) -> pd.DataFrame:
    """The first half of `check_events`: every column, in its own type, values not looked at yet."""
    import pandas as pd  # noqa: PLC0415

    for required in ("visitor", "time", "name"):
        if required not in events.columns:
            raise EventError(
                f"the events have no column {required!r} (found: {', '.join(map(str, events.columns))}); "
                "map one to it in configs/shop.toml [sources.<name>.columns]"
            )
    unknown = [name for name in events.columns if name not in COLUMNS]
    if unknown:
        raise EventError(f"unknown event column {unknown[0]!r}; known: {', '.join(COLUMNS)}; drop it or map it")
    columns: dict[str, np.ndarray] = {}
    for name, column in COLUMNS.items():
        if name in events.columns:
            columns[name] = _typed(name, events[name])
        elif name != "interactive":
            columns[name] = _defaults(len(events), column)
    if "interactive" not in columns:
        columns["interactive"] = interactive_by_default(columns["name"])
    return pd.DataFrame({name: columns[name] for name in COLUMNS}, copy=False)


def interactive_by_default(names: np.ndarray) -> np.ndarray:
    """1 for names that are an interaction, 0 for PASSIVE ones. Shape (n,) u1 in, (n,) u1 out."""
    table = np.ones(256, np.uint8)
    table[list(PASSIVE)] = 0
    return table[names]


def _defaults(rows: int, column: Column) -> np.ndarray:
    # zeros are not written by anybody: the machine hands out empty pages only where they are read
    return np.full(rows, column.default, column.dtype) if column.default else np.zeros(rows, column.dtype)


def _typed(name: str, values: pd.Series) -> np.ndarray:
    from pandas.api.types import is_numeric_dtype  # noqa: PLC0415

    column = COLUMNS[name]
    if not is_numeric_dtype(values.dtype):
        raise EventError(f"column {name!r} has type {values.dtype}; expected numbers: {column.meaning}")
    # a float column shows its NaN when its range is checked
    if column.dtype != "f8" and values.dtype.kind not in "iub":
        missing = np.flatnonzero(values.isna().to_numpy())
        if missing.size:
            raise EventError(
                f"row {missing[0]}: {name} is NaN; expected {column.meaning}. Fill it or drop the row "
                f"({missing.size} such rows)"
            )
    array = values.to_numpy()
    typed = array.astype(column.dtype, copy=False)
    if np.dtype(column.dtype).kind in "iu" and array.dtype != typed.dtype:
        changed = np.flatnonzero(typed != array)
        if changed.size:
            raise EventError(f"row {changed[0]}: {name} is {array[changed[0]]!r}; expected {column.meaning}")
    return np.ascontiguousarray(typed)


# From 1990 to 2100: a time outside is seconds or microseconds taken for milliseconds.
_TIME_RANGE_MS: Final = (631_152_000_000, 4_102_444_799_999)
_LARGEST: Final = float(np.finfo(np.float64).max)


def check_ranges(table: pd.DataFrame) -> None:
    """The second half of `check_events`: every value of a typed table is what its column allows."""

    def within(name: str, least: float, most: float, expected: str) -> None:
        column = table[name].to_numpy()
        # the ends tell at once that all is well; only a bad column is searched
        if len(column) and not (column.min() >= least and column.max() <= most):
            rows = np.flatnonzero(~((column >= least) & (column <= most)))
            found = column[rows[0]]
            shown = "NaN" if np.isnan(found) else found
            raise EventError(f"row {rows[0]}: {name} is {shown}; expected {expected} ({rows.size} such rows)")

    first, last = _TIME_RANGE_MS
    within("time", first, last, "milliseconds since 1970 between the years 1990 and 2100")
    within("name", 0, len(EVENT_NAMES) - 1, f"a code below {len(EVENT_NAMES)}, see EVENT_NAMES")
    within("channel", 0, len(CHANNELS) - 1, f"a code below {len(CHANNELS)}: {', '.join(CHANNELS)}")
    within("device", 0, len(DEVICES) - 1, f"a code below {len(DEVICES)}: {', '.join(DEVICES)}")
    within("consent", 0, sum(CONSENTS.values()), f"a set of the bits {dict(CONSENTS)}")
    within("utc_offset", -18 * 60, 18 * 60, "minutes between -1080 and 1080")
    for name in ("price", "quantity", "value"):
        within(name, 0, _LARGEST, "a finite number, 0 or more")
    for slot in range(DECLARED_SLOTS):
        within(f"declared_{slot}", -_LARGEST, _LARGEST, "a finite number")
