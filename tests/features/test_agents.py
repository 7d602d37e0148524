"""User agents: a string in, a kind of device out."""

from __future__ import annotations

import gzip
from collections import Counter

import pytest

from features.agents import device_of
from tests.shared import SHARED

_CHROME = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0"


@pytest.mark.parametrize(
    ("device", "agent"),
    [
        ("desktop", f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_CHROME} Safari/537.36"),
        ("desktop", f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {_CHROME} Safari/537.36"),
        ("desktop", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/17.4 Safari/605"),
        ("desktop", "Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 6.1; Trident/4.0; Tablet PC 2.0)"),
        ("desktop", "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; Embedded Web Browser from: http://bsalsa.com/)"),
        ("mobile", "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148"),
        ("mobile", f"Mozilla/5.0 (Linux; Android 12; Pixel 6) {_CHROME} Mobile Safari/537.36"),
        ("mobile", f"Mozilla/5.0 (Linux; Android 9; CUBOT X19) {_CHROME} Mobile Safari/537.36"),
        ("mobile", "Mozilla/5.0 (Android 13; Mobile; rv:109.0) Gecko/114.0 Firefox/114.0"),
        ("mobile", "Dalvik/2.1.0 (Linux; U; Android 13; Pixel 7 Build/TQ3A)"),
        ("mobile", "Opera/9.80 (J2ME/MIDP; Opera Mini/7.1.32052/34.1244; U; en) Presto/2.8.119 Version/11.10"),
        ("mobile", "Mozilla/5.0 (Mobile; Nokia 8110 4G; rv:48.0) Gecko/48.0 Firefox/48.0 KAIOS/2.5"),
        ("tablet", "Mozilla/5.0 (iPad; CPU OS 16_5 like Mac OS X) AppleWebKit/605.1.15 Version/16.5 Mobile/15E148"),
        ("tablet", f"Mozilla/5.0 (Linux; Android 13; SM-X906C) {_CHROME} Safari/537.36"),
        ("tv", f"Mozilla/5.0 (Linux; Android 9; SHIELD Android TV) {_CHROME} Safari/537.36"),
        ("tv", "Mozilla/5.0 (Linux; Android 9; AFTWMST22) AppleWebKit/537.36 Silk/120 Safari/537.36"),
        ("tv", f"Mozilla/5.0 (Web0S; Linux/SmartTV) {_CHROME} Safari/537.36"),
        ("tv", "Mozilla/5.0 (PlayStation; PlayStation 5/2.26) AppleWebKit/605.1.15"),
        ("bot", "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)"),
        ("bot", "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)"),
        ("bot", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 HeadlessChrome/120.0 Safari/537.36"),
        ("bot", "Mozilla/5.0 (compatible; Ezooms/1.0; help@moz.com)"),
        ("bot", "UniversalFeedParser/4.2-pre-314-svn +http://feedparser.org/"),
        ("bot", "python-requests/2.31.0"),
        ("bot", "Prometheus/2.40.5"),
        ("bot", "ELB-HealthChecker/2.0"),
        ("unknown", "Mozilla/5.0"),
        ("unknown", "-"),
        ("unknown", " "),
        ("unknown", ""),
    ],
)  # fmt: skip
def test_a_string_names_a_kind_of_device(device: str, agent: str) -> None:
    assert device_of(agent) == device


def test_an_endless_string_is_cut() -> None:
    assert device_of("x" * 1_000 + " Googlebot/2.1") == "unknown"


def test_the_agents_of_a_real_log() -> None:
    with gzip.open(SHARED / "data" / "apache_combined_10k" / "apache_logs.gz", "rt") as log:
        devices = Counter(device_of(line.rstrip("\n").rpartition(' "')[2].rstrip('"')) for line in log)
    # 1,398 of the bots call themselves bot, crawler, spider or slurp; the others are feed readers and HTTP libraries
    assert devices == {"desktop": 6701, "bot": 2646, "mobile": 306, "unknown": 253, "tablet": 94}
