"""Where a visit came from, told from the address of a page and its referrer.

In: two texts, either may be empty. Out: a channel of `features.events.CHANNELS` and the campaign. Both texts are looked
at and forgotten. The rules follow Google Analytics' default channel group, reduced to our channels.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlsplit

_SEARCH: Final = re.compile(
    r"(^|\.)(google|bing|yahoo|duckduckgo|ecosia|startpage|qwant|yandex|baidu|naver|sogou|seznam|aol|ask|brave|"
    r"swisscows|metager|kagi|t-online)\.[a-z.]{2,6}$"
)
_SOCIAL: Final = re.compile(
    r"(^|\.)(facebook|instagram|twitter|x|t|linkedin|lnkd|pinterest|reddit|tiktok|youtube|youtu|xing|vk|tumblr|snapchat|"
    r"whatsapp|wa|telegram|mastodon|threads|bsky|quora|weibo)\.(com|co|de|net|org|be|me|in|ru|app|social|pinterest)$"
)
_MAIL: Final = re.compile(r"(^|\.)(mail|webmail|outlook|gmx|deref-gmx|deref-web|protonmail)\.[a-z.]{2,12}|^mail\.")
_PAID_MEDIUM: Final = re.compile(r"^(.*cp.*|ppc|retargeting|paid.*|display|banner|affiliate.*)$")
_CLICK_IDS: Final = frozenset({"gclid", "gbraid", "wbraid", "msclkid", "dclid", "ttclid", "yclid"})
_MEDIUM: Final = {
    "organic": "organic",
    "email": "email",
    "e-mail": "email",
    "newsletter": "email",
    "social": "social",
    "social-media": "social",
    "sm": "social",
    "referral": "referral",
    "(none)": "direct",
}


class Entry(NamedTuple):
    """How a page was come to."""

    channel: str
    campaign: str


def entry_of(url: str, referrer: str) -> Entry:
    """Channel and campaign.

    >>> entry_of("https://shop.example/?utm_medium=cpc&utm_campaign=spring", "https://www.google.com/")
    Entry(channel='paid', campaign='spring')
    >>> entry_of("https://shop.example/", "https://shop.example/sale").channel
    'internal'
    """
    page, source = _split(url), _split(referrer)
    query = dict(parse_qsl(page.query)) if page.query else {}
    campaign = query.get("utm_campaign") or query.get("mtm_campaign") or query.get("pk_campaign") or ""
    medium = (query.get("utm_medium") or query.get("mtm_medium") or query.get("pk_medium") or "").lower()
    if _PAID_MEDIUM.match(medium) or not _CLICK_IDS.isdisjoint(query):
        return Entry("paid", campaign)
    if medium in _MEDIUM:
        return Entry(_MEDIUM[medium], campaign)
    return Entry(referrer_channel(source.hostname or "", page.hostname or ""), campaign)


def referrer_channel(host: str, own_host: str = "") -> str:
    """The channel of a referring host: "direct" without one, "internal" for the site's own."""
    host, own_host = host.lower(), own_host.lower()
    if not host:
        return "direct"
    if own_host and host.removeprefix("www.") == own_host.removeprefix("www."):
        return "internal"
    if _MAIL.search(host):
        return "email"
    if _SEARCH.search(host):
        return "organic"
    return "social" if _SOCIAL.search(host) else "referral"


def _split(text: str) -> SplitResult:
    try:
        found = urlsplit(text if "://" in text or text.startswith("/") else f"//{text}")
        found.hostname  # noqa: B018  (a bad host shows only here)
    except ValueError:
        return urlsplit("")
    return found
