"""What kind of device a user agent string names, and whether it says itself that it is a bot.

In: the string. Out: a name of `features.events.DEVICES`. The string is looked at and forgotten.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ua_parser import parse

# Programs that name themselves and are no browser, where the parser's own list has no entry.
_PROGRAM = re.compile(
    r"bot\b|crawl|spider|slurp|fetch|monitor|scan|preview|headless|^-?$|"
    r"^(curl|wget|python|java|go-http|okhttp|libwww|php|ruby|perl|axios|node|apache-httpclient|tiny tiny rss)",
    re.IGNORECASE,
)
_TABLET = re.compile(r"tablet|ipad|kindle|silk|playbook", re.IGNORECASE)
_TV = re.compile(r"smart-?tv|appletv|hbbtv|roku|bravia|netcast|aftb|aftt|crkey|playstation|xbox", re.IGNORECASE)
_MOBILE_SYSTEMS = frozenset({"iOS", "Windows Phone", "BlackBerry OS", "Firefox OS", "KaiOS", "Symbian OS"})


@lru_cache(maxsize=100_000)
def device_of(user_agent: str) -> str:
    """The kind of device, "bot" for a declared one, "unknown" where nothing tells.

    >>> device_of("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)")
    'bot'
    >>> device_of("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36")
    'desktop'
    """
    if not user_agent or user_agent == "-":
        return "unknown"
    found = parse(user_agent)
    family = found.device.family if found.device else ""
    if family == "Spider" or _PROGRAM.search(user_agent):
        return "bot"
    system = found.os.family if found.os else ""
    if _TV.search(user_agent):
        return "tv"
    if _TABLET.search(user_agent) or (system == "Android" and "Mobile" not in user_agent):
        return "tablet"
    if system == "Android" or system in _MOBILE_SYSTEMS:
        return "mobile"
    return "desktop" if system else "unknown"
