"""The kind of device that a user agent string names. The string is looked at and goes no further.

The rules are those of the browser client, so that a visitor is the same device to the server and to the page.
"""

from __future__ import annotations

import re
from typing import Final

_BOT: Final = re.compile(r"(?:^|[^u])bot(?![a-z])|crawl|spider|headless|lighthouse|preview|https?:", re.IGNORECASE)
_TV: Final = re.compile(
    r"smart-?tv|apple ?tv|hbbtv|(android|google) ?tv|roku|bravia|web0s|\baft[a-z]|crkey|playstation|xbox",
    re.IGNORECASE,
)
_TABLET: Final = re.compile(r"tablet(?! pc)|ipad|kindle|\bsilk/|android(?!.*mobile)", re.IGNORECASE)
_MOBILE: Final = re.compile(r"mobile|android", re.IGNORECASE)
# Programs, by the name a string begins with. Not okhttp and the like, which shops' own apps are made with.
_LIBRARY: Final = re.compile(r"curl|wget|python|go-http|java/|libwww|php|guzzle|ruby|perl|axios|node", re.IGNORECASE)
# Longer ones are attacks or rubbish; what matters stands in front.
_LONGEST: Final = 1_000


def device(agent: str) -> str:
    """desktop, mobile, tablet, tv, or bot; unknown where nothing tells.

    >>> device("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1")
    'mobile'
    >>> device("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"), device("curl/8.5.0")
    ('bot', 'bot')
    """
    agent = agent[:_LONGEST].strip()
    if not agent:
        return "unknown"
    if _BOT.search(agent) or _LIBRARY.match(agent):
        return "bot"
    if _TV.search(agent):
        return "tv"
    if _TABLET.search(agent):
        return "tablet"
    return "mobile" if _MOBILE.search(agent) else "desktop"
