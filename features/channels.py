"""Where a visit came from, told from addresses, campaign tags, or the channel group that an analytics tool gave it.

In: texts, any of which may be empty. Out: a channel of `features.events.CHANNELS` and the campaign. The texts are
looked at and forgotten. The rules are those of Google Analytics' default channel group, reduced to our channels:

- paid: every paid group (search, social, shopping, video, display, cross-network, audio) and affiliates;
- organic: unpaid results of search engines and of shopping sites;
- social: social networks and video sites;
- email: every message the shop sends itself: e-mail, SMS, push notifications;
- unknown: tagged, but by no rule ("Unassigned").

Three things differ on purpose: a click id of an ad network means paid whatever the tags say; a campaign whose name
contains "shop" is not taken for a shopping site; and a tag that no rule knows leaves the word to the referrer.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlsplit

# The names of the default channel groups of Google Analytics 4 and, the last three, of its predecessor.
CHANNEL_GROUPS: Final = {
    "Direct": "direct",
    "Cross-network": "paid",
    "Paid Shopping": "paid",
    "Paid Search": "paid",
    "Paid Social": "paid",
    "Paid Video": "paid",
    "Paid Other": "paid",
    "Display": "paid",
    "Affiliates": "paid",
    "Audio": "paid",
    "Organic Shopping": "organic",
    "Organic Search": "organic",
    "Organic Social": "social",
    "Organic Video": "social",
    "Email": "email",
    "SMS": "email",
    "Mobile Push Notifications": "email",
    "Referral": "referral",
    "AI Assistant": "referral",
    "Unassigned": "unknown",
    "Social": "social",
    "Other Advertising": "paid",
    "(Other)": "unknown",
}

# Sites by the name before their public suffix: google.com, www.google.co.uk. A library does not spare the list: those
# that tell a referrer's kind had their latest release in 2016 and 2021, or are too young to be relied on.
_SEARCH: Final = re.compile(
    "google|bing|yahoo|duckduckgo|ecosia|startpage|qwant|yandex|ya|baidu|naver|daum|sogou|seznam|aol|ask|brave|"
    "swisscows|metager|kagi|mojeek|t-online|lycos|dogpile|presearch"
)
_SHOPPING: Final = re.compile("amazon|ebay|etsy|idealo|aliexpress|alibaba|walmart|rakuten|geizhals|billiger")
_SOCIAL: Final = re.compile(
    "facebook|instagram|twitter|linkedin|pinterest|reddit|tiktok|youtube|xing|tumblr|snapchat|whatsapp|telegram|"
    "mastodon|threads|quora|weibo|vimeo|dailymotion|twitch|discord|messenger|nextdoor|flickr"
)
_MAIL: Final = re.compile("mail|webmail|outlook|gmx|protonmail|deref-gmx|deref-web|deref-mail|list-manage")
# Names too short to stand without their suffix, and apps, which name themselves in an `android-app://` referrer.
_SITES: Final = {
    **dict.fromkeys(("x.com", "t.co", "fb.com", "fb.me", "lnkd.in", "youtu.be", "redd.it", "pin.it"), "social"),
    **dict.fromkeys(("t.me", "wa.me", "vk.com", "ok.ru", "bsky.app"), "social"),
    "com.google.android.googlequicksearchbox": "organic",
    "com.google.android.gm": "email",
    "com.linkedin.android": "social",
    "com.reddit.frontpage": "social",
    "com.pinterest": "social",
    "org.telegram.messenger": "social",
}
# What campaign tags call a site for short.
_SHORT: Final = {"fb": "social", "ig": "social", "insta": "social", "yt": "social"}
# A search engine's other hosts (docs.google.com, finance.yahoo.com) are no search.
_SEARCH_HOST: Final = re.compile(r"(www\d?|m|search|suche|r|images|html|lite|[a-z]{2})")
_MAIL_HOST: Final = frozenset({"mail", "webmail", "outlook", "email", "owa"})
_SECOND_LEVEL: Final = frozenset({"co", "com", "org", "net", "ac", "ne", "or"})
_NO_HOST: Final = frozenset({"", "-", "about", "null", "none", "undefined"})

_PAID_MEDIUM: Final = re.compile(
    r".*cp.*|ppc|retargeting|paid.*|display|banner|expandable|interstitial|audio|affiliate.*"
)
_SOCIAL_MEDIUM: Final = frozenset({"social", "social-network", "social-media", "sm", "social network", "social media"})
_EMAIL: Final = frozenset({"email", "e-mail", "e_mail", "e mail", "newsletter"})
_MESSAGE_MEDIUM: Final = re.compile(r"sms|.*push|.*mobile.*|.*notification.*")
_CLICK_IDS: Final = frozenset({"gclid", "gbraid", "wbraid", "msclkid", "dclid", "ttclid", "yclid"})
_TAG_PREFIXES: Final = ("utm", "mtm", "pk")


class Entry(NamedTuple):
    """How a page was come to."""

    channel: str
    campaign: str


def entry_of(url: str, referrer: str) -> Entry:
    """Channel and campaign of a page view, from its address and its referrer.

    >>> entry_of("https://shop.example/?utm_medium=cpc&utm_campaign=spring", "https://www.google.com/")
    Entry(channel='paid', campaign='spring')
    >>> entry_of("https://shop.example/", "https://shop.example/sale").channel
    'internal'
    """
    page, came_from = _split(url), _split(referrer)
    query = _query(page)
    source, medium, campaign = (_tag(query, key) for key in ("source", "medium", "campaign"))
    if not _CLICK_IDS.isdisjoint(query):
        return Entry("paid", campaign)
    tagged = channel_of(source, medium, campaign)
    if tagged != "unknown":
        return Entry(tagged, campaign)
    channel = referrer_channel(came_from.hostname or "", page.hostname or "")
    # nobody types a tagged address: it was a link, and nothing says of which kind
    return Entry("unknown" if channel == "direct" and (source or medium or campaign) else channel, campaign)


def campaign_of_address(url: str) -> str:
    """The campaign of a page view by its address alone, empty without one: that of `entry_of`.

    >>> campaign_of_address("https://shop.example/?utm_medium=cpc&utm_campaign=spring")
    'spring'
    """
    return _tag(_query(_split(url)), "campaign")


def channel_of(source: str, medium: str, campaign: str = "") -> str:
    """The channel of a visit by its source, medium and campaign, as tags or an analytics tool name them.

    >>> channel_of("google", "organic"), channel_of("facebook.com", "referral"), channel_of("(direct)", "(none)")
    ('organic', 'social', 'direct')
    >>> channel_of("partner", "something else")
    'unknown'
    """
    source, medium = source.strip().lower(), medium.strip().lower()
    if (source in ("(direct)", "direct") and medium in ("", "(none)", "(not set)")) or (
        not source and medium == "(none)"
    ):
        return "direct"
    if _PAID_MEDIUM.fullmatch(medium) or "cross-network" in campaign.lower():
        return "paid"
    if source in _EMAIL or medium in _EMAIL:
        return "email"
    site = _SHORT.get(source) or _site_channel(source)
    if site == "social" or medium in _SOCIAL_MEDIUM or "video" in medium:
        return "social"
    if site == "organic" or medium == "organic":
        return "organic"
    if source in ("sms", "firebase") or _MESSAGE_MEDIUM.fullmatch(medium) or site == "email":
        return "email"
    return "referral" if medium in ("referral", "app", "link") else "unknown"


def referrer_channel(host: str, own_host: str = "") -> str:
    """The channel of a referring host: "direct" without one, "internal" for the site's own.

    >>> referrer_channel("www.google.co.uk"), referrer_channel("docs.google.com"), referrer_channel("mail.google.com")
    ('organic', 'referral', 'email')
    >>> referrer_channel("pay.shop.example", "www.shop.example")
    'internal'
    """
    host, own_host = host.lower().removeprefix("www."), own_host.lower().removeprefix("www.")
    if host in _NO_HOST:
        return "direct"
    if own_host and (host == own_host or host.endswith("." + own_host) or own_host.endswith("." + host)):
        return "internal"
    return _site_channel(host) or "referral"


def _site_channel(host: str) -> str:
    """organic, social or email for a site that is known, by its host or its bare name; else empty."""
    labels = host.split(".")
    short = host if host in _SITES else ".".join(labels[-2:])
    if short in _SITES:
        return _SITES[short]
    # the name stands before a suffix of one label (.com) or two (.co.uk); a bare name is one itself
    suffix = 0 if len(labels) == 1 else 2 if len(labels) > 2 and labels[-2] in _SECOND_LEVEL else 1
    *before, name = labels[: len(labels) - suffix]
    if _MAIL.fullmatch(name) or not _MAIL_HOST.isdisjoint(before):
        return "email"
    if _SEARCH.fullmatch(name) and all(_SEARCH_HOST.fullmatch(label) for label in before):
        return "organic"
    if _SOCIAL.fullmatch(name):
        return "social"
    return "organic" if _SHOPPING.fullmatch(name) else ""


def _query(page: SplitResult) -> dict[str, str]:
    return dict(parse_qsl(page.query)) if page.query else {}


def _tag(query: dict[str, str], key: str) -> str:
    return next((found for prefix in _TAG_PREFIXES if (found := query.get(f"{prefix}_{key}"))), "")


def _split(text: str) -> SplitResult:
    try:
        found = urlsplit(text if "://" in text or text.startswith("/") else f"//{text}")
        found.hostname  # noqa: B018  (a bad host shows only here)
    except ValueError:
        return urlsplit("")
    return found
