"""What kind of device a user agent string names, and whether it says itself that it is a program.

In: the string, as the browser or the program sends it. Out: a name of `features.events.DEVICES`; "unknown" for an empty
string and where nothing tells. The string is looked at and forgotten; what it named is remembered by a hash.
Nobody is found out here: "bot" means that the
string says so, by a word, by a library's name or by giving an address where its owner can be asked.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from ua_parser import BestAvailableResolver, Parser, RegexResolver, load_builtins, load_lazy_builtins

from features.remember import remembered

# Words by which programs call themselves, where the parser's own list has no entry. Cubot is a maker of telephones.
_WORDS: Final = re.compile(
    r"(?<!cu)bot(?![a-z])|crawl|spider|slurp|fetch|monitor|scanner|preview|headless|phantomjs|lighthouse|archiver|feed|"
    r"rss\b|scrap(y|er)|validator|healthcheck|kube-probe|prometheus|uptime|facebookexternalhit|embedly|nutch|"
    r"url ?resolver|link ?check|site ?explorer|mediapartners|inspectiontool|indexer|harvest",
    re.IGNORECASE,
)
# HTTP libraries and download programs, by the name a string begins with.
_LIBRARY: Final = re.compile(
    r"(curl|wget|python|aiohttp|httpx|java/|go-http|okhttp|libwww|lwp|php|guzzle|ruby|faraday|perl|axios|node|"
    r"undici|apache-httpclient|http_request|postmanruntime|powershell|winhttp|restsharp|dart/|reqwest|"
    r"whatsapp/|microsoft office|check_http|zgrab|masscan|nmap)",
    re.IGNORECASE,
)
# An address to complain to. The one browser component that carries its maker's is in people's hands.
_CONTACT: Final = re.compile(r"https?://(?!bsalsa\.com)|[\w.-]@[\w-]+\.\w", re.IGNORECASE)

_TV: Final = re.compile(
    r"smart-?tv|appletv|apple tv|hbbtv|android ?tv|google ?tv|roku|bravia|netcast|web0s|viera|\bce-html|"
    r"\baft[a-z]\w*\b|crkey|playstation|xbox",
    re.IGNORECASE,
)
# Not "Tablet PC 2.0", which Internet Explorer says on every desktop with handwriting recognition.
_TABLET: Final = re.compile(r"tablet(?! pc)|ipad|kindle|\bsilk/|playbook", re.IGNORECASE)
_MOBILE: Final = re.compile(
    r"midp|opera mini|opera mobi|symbian|blackberry|\bbb10|iemobile|windows phone|windows ce|webos/|maui|"
    r"\bmobile\b|up\.browser|openwave",
    re.IGNORECASE,
)
_MOBILE_SYSTEMS: Final = frozenset({"iOS", "Windows Phone", "BlackBerry OS", "Firefox OS", "KaiOS", "Symbian OS"})

# Longer ones are attacks or rubbish; what matters stands in front.
_LONGEST: Final = 1_000
_REMEMBERED: Final = 50_000


@cache
def _parser() -> Parser:
    """The library's own remembers whole strings."""
    return Parser(BestAvailableResolver(load_lazy_builtins() if RegexResolver else load_builtins()))


@remembered(_REMEMBERED)
def device_of(user_agent: str) -> str:
    """The kind of device, "bot" for a program that declares itself, "unknown" where nothing tells.

    >>> device_of("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)")
    'bot'
    >>> device_of("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36")
    'desktop'
    """
    user_agent = user_agent[:_LONGEST].strip()
    if not user_agent or user_agent == "-":
        return "unknown"
    if _WORDS.search(user_agent) or _LIBRARY.match(user_agent) or _CONTACT.search(user_agent):
        return "bot"
    found = _parser().parse(user_agent)
    if found.device and found.device.family == "Spider":
        return "bot"
    system = found.os.family if found.os else ""
    if _TV.search(user_agent):
        return "tv"
    # Android's browsers say "Mobile" on a telephone and leave it out on a tablet; its apps keep to nothing
    browser = user_agent.startswith("Mozilla/")
    if _TABLET.search(user_agent) or (system == "Android" and browser and "mobile" not in user_agent.lower()):
        return "tablet"
    if system == "Android" or system in _MOBILE_SYSTEMS or _MOBILE.search(user_agent):
        return "mobile"
    return "desktop" if system else "unknown"
