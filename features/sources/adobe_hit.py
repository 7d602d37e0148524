"""One hit of an Adobe Analytics data feed: what it says in our words.

In: the cells of a hit that are not empty, under the names of the feed's columns. Out: records of our columns: the page
view or link first, then what its list of events adds, a product each where the event is about products. One hit is one
thing that the visitor did, so only its first record is an interaction. What the hit does not say is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from features.agents import device_of
from features.channels import Entry, entry_of
from features.events import CONSENT_MEASURE, EVENT_NAMES
from features.sources.adobe_events import PURCHASE, SHOPPING, Record, in_order, products, records
from features.sources.reading import Reading

Hit = dict[str, str]

_EITHER: Final = (
    "visid_high", "visid_low", "visid_type", "page_event", "page_url", "pagename", "referrer", "event_list",
    "product_list", "campaign", "currency", "cust_hit_time_gmt", "t_time_info", "customer_perspective",
)  # fmt: skip
COLUMNS: Final = frozenset({
    *_EITHER, *(f"post_{name}" for name in _EITHER),
    "visit_num", "visit_start_time_gmt", "hit_time_gmt", "hitid_high", "hitid_low", "exclude_hit", "hit_source",
    "duplicate_purchase", "ref_type", "paid_search", "va_closer_id", "user_agent", "mobile_id",
    "dataprivacyconsentoptout",
})  # fmt: skip

NO_VISITOR: Final = "no visitor id"
EXCLUDED: Final = "excluded by Adobe (exclude_hit)"
UPLOADED: Final = "uploaded from a data source (hit_source 5, 7, 8, 9)"
BACKGROUND: Final = "mobile background hit (customer_perspective)"
TARGET: Final = "Target activity without a page (page_event 70)"
REPEATED_PURCHASE: Final = "repeated purchase (duplicate_purchase); the rest of its hit is kept"

_DATA_SOURCES: Final = frozenset({"5", "7", "8", "9"})
# page_event and post_page_event, which number links and media apart: 10 and 100 are the same
_PAGE_EVENTS: Final = {
    "0": "page_view",
    **dict.fromkeys(("10", "100"), "custom_link"),
    **dict.fromkeys(("11", "101"), "download_link"),
    **dict.fromkeys(("12", "102"), "exit_link"),
    **dict.fromkeys(("31", "76", "50", "60"), "media_start"),
    **dict.fromkeys(("32", "33", "77", "78", "52", "53", "62", "63"), "media_update"),
    **dict.fromkeys(("51", "61"), "media_close"),
    **dict.fromkeys(("54", "55", "56", "64", "65", "66"), "media_ad"),
    **dict.fromkeys(("40", "80"), "survey"),
}
_TARGET: Final = "70"
# The numbers of event.tsv that are the same in every report suite, and custom events by theirs: 200 is event1.
_SHOPPING: Final = {
    "1": "purchase",
    "2": "prodView",
    "10": "scOpen",
    "11": "scCheckout",
    "12": "scAdd",
    "13": "scRemove",
    "14": "scView",
}
_CUSTOM: Final = ((range(200, 300), 199), (range(20_100, 21_000), 19_999))
# The visitor is a hash of the address and the browser: no id that may be kept from one visit to the next.
_BY_ADDRESS: Final = "1"
_ZERO: Final = ("", "0")


@lru_cache(maxsize=100_000)
def _entry(url: str, referrer: str) -> Entry:
    return entry_of(url, referrer)


def event_numbers(text: str) -> list[str]:
    """The numbers of an event list, without the values and serial numbers that may follow them.

    >>> event_numbers("1,200=4.5,12")
    ['1', '200', '12']
    """
    return [number for entry in text.split(",") if (number := entry.partition("=")[0].partition(":")[0].strip())]


@dataclass(frozen=True)
class HitReader:
    """Turns the hits of one feed into records.

    Attributes
    ----------
    event_names: number -> name, as event.tsv has it; device_types: mobile_id -> type, as mobile_attributes.tsv has it.
    currency: of `post_product_list`; marketing_channels: va_closer_id -> channel; headers: columns of the feed.
    """

    reading: Reading
    event_names: Mapping[str, str]
    device_types: Mapping[str, str]
    currency: str
    marketing_channels: Mapping[str, str]
    headers: list[str]

    def events(self, hit: Hit) -> list[Record]:
        """The records of a hit; none, and counted, where Adobe's reports leave it out."""
        skipped = self.reading.notes.skipped
        high, low = self.posted(hit, "visid_high"), self.posted(hit, "visid_low")
        if hit.get("exclude_hit", "0") != "0":
            skipped[EXCLUDED] += 1
        elif hit.get("hit_source") in _DATA_SOURCES:
            skipped[UPLOADED] += 1
        elif self.posted(hit, "customer_perspective") not in _ZERO:
            skipped[BACKGROUND] += 1
        elif high in _ZERO and low in _ZERO:
            skipped[NO_VISITOR] += 1
        elif self.posted(hit, "page_event") == _TARGET and not self.page(hit):
            skipped[TARGET] += 1
        else:
            return self.records(hit, f"{high}-{low}")
        return []

    def posted(self, hit: Hit, name: str) -> str:
        """The value after Adobe's processing where the feed holds it, empty or not; else as it was sent."""
        post = f"post_{name}"
        return hit.get(post, "") if post in self.headers else hit.get(name, "")

    def records(self, hit: Hit, visitor: str) -> list[Record]:
        visit = hit.get("visit_num", "")
        session = f"{visitor}-{visit}-{hit.get('visit_start_time_gmt', '')}" if visit not in _ZERO else None
        by_address = self.posted(hit, "visid_type") == _BY_ADDRESS
        identity = f"{hit.get('hitid_high', '')}-{hit.get('hitid_low', '')}".strip("-") or None
        channel, campaign = self.origin(hit)
        times = (hit.get(name) for name in ("post_cust_hit_time_gmt", "cust_hit_time_gmt", "hit_time_gmt"))
        record: Record = {
            "visitor": session if by_address and session else visitor,
            "session": session,
            "time": next((time for time in times if time not in (None, *_ZERO)), None),
            "page": self.page(hit),
            "channel": channel,
            "campaign": campaign,
            "device": self.device(hit),
            "utc_offset": self.utc_offset(hit),
            "consent": CONSENT_MEASURE if by_address or "dataprivacyconsentoptout" in hit else None,
        }
        found = [record | said for name in self.names(hit) for said in self.said(hit, name)]
        for number, further in enumerate(found):
            further["id"] = f"{identity}/{number}" if identity and number else identity
            further["interactive"] = 0 if number else None
        return found

    def names(self, hit: Hit) -> list[str]:
        """What happened, in the words of `DEFAULTS.events`: the kind of hit, then its events."""
        kind = self.posted(hit, "page_event") or "0"
        first = "page_view" if kind == _TARGET else _PAGE_EVENTS.get(kind, f"page_event {kind}")
        numbers = event_numbers(self.posted(hit, "event_list"))
        names = [name for number in dict.fromkeys(numbers) if (name := self.event_name(number))]
        if PURCHASE in names and hit.get("duplicate_purchase") == "1":
            names.remove(PURCHASE)
            self.reading.notes.skipped[REPEATED_PURCHASE] += 1
        return in_order(first, names)

    def event_name(self, number: str) -> str:
        """Name of an event of the list; empty for what is no action: that a variable was set, an unmapped counter."""
        if number in _SHOPPING:
            return _SHOPPING[number]
        order = int(number) if number.isdigit() else -1
        name = next((f"event{order - before}" for numbers, before in _CUSTOM if order in numbers), "")
        if not name:
            return ""
        settings, shop = self.reading.settings, self.reading.shop
        label = self.event_names.get(number, "")
        for known in (name, label):
            if known in settings.events or known in shop.events or known in EVENT_NAMES:
                return known
        if (settings.unknown_events or shop.unknown_events) == "error":
            return name
        self.reading.notes.unmapped[f"{name} ({label})" if label else name] += 1
        return ""

    def said(self, hit: Hit, name: str) -> list[Record]:
        """The event's own columns, a record for each product where the event is about each."""
        if name not in SHOPPING:
            return [{"name": name}]
        currency = self.currency if "post_product_list" in self.headers else self.posted(hit, "currency")
        return records(name, products(self.posted(hit, "product_list")), currency)

    def page(self, hit: Hit) -> str | None:
        """The address; the name of the page where there is none, as in apps, but not of a link, which stays on it."""
        address = hit.get("post_page_url") or hit.get("page_url")
        if address or _PAGE_EVENTS.get(self.posted(hit, "page_event") or "0", "page_view") != "page_view":
            return address
        return self.posted(hit, "pagename") or None

    def origin(self, hit: Hit) -> tuple[str | None, str | None]:
        """Channel and campaign."""
        found = _entry(hit.get("post_page_url") or hit.get("page_url", ""), self.posted(hit, "referrer"))
        campaign = self.posted(hit, "campaign") or found.campaign
        if (marketing := self.marketing_channels.get(hit.get("va_closer_id", ""))) is not None:
            return marketing, campaign
        # what the address says of an advertisement or a mailing, Adobe's type of referrer cannot know
        if hit.get("paid_search", "0") != "0" or found.channel == "paid":
            return "paid", campaign
        return found.channel if found.channel == "email" else hit.get("ref_type") or found.channel, campaign

    def device(self, hit: Hit) -> str:
        if "user_agent" in hit:
            return device_of(hit["user_agent"])
        mobile = hit.get("mobile_id", "0")
        if mobile in _ZERO:
            return "unknown"
        return self.reading.settings.devices.get(self.device_types.get(mobile, ""), "mobile")

    def utc_offset(self, hit: Hit) -> int | None:
        """Minutes ahead of UTC, from `5/0/2026 9:00:00 1 -60`: a browser counts them the other way round."""
        try:
            behind = int(self.posted(hit, "t_time_info").split()[-1])
        except (IndexError, ValueError):
            return None
        return -behind if abs(behind) <= 18 * 60 else None
