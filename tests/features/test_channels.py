"""Channels: addresses, tags and names of channel groups in, one of our channels out."""

from __future__ import annotations

import pytest

from features.channels import CHANNEL_GROUPS, Entry, channel_of, entry_of, referrer_channel
from features.events import CHANNELS

SHOP = "https://www.shop.example/"


@pytest.mark.parametrize(
    ("source", "medium", "campaign", "channel"),
    [
        ("(direct)", "(none)", "", "direct"),
        ("(direct)", "(not set)", "", "direct"),
        ("google", "cpc", "", "paid"),
        ("facebook", "paid_social", "", "paid"),
        ("partner", "affiliate", "", "paid"),
        ("partner", "display", "", "paid"),
        ("podcast", "audio", "", "paid"),
        ("google", "(not set)", "Cross-Network autumn", "paid"),
        ("google", "organic", "", "organic"),
        ("GOOGLE", "Organic", "", "organic"),
        ("duckduckgo", "referral", "", "organic"),
        ("amazon.de", "referral", "", "organic"),
        ("m.facebook.com", "referral", "", "social"),
        ("ig", "link", "", "social"),
        ("anything", "social-media", "", "social"),
        ("youtube.com", "referral", "", "social"),
        ("partner", "product video", "", "social"),
        ("crm", "email", "", "email"),
        ("e-mail", "link", "", "email"),
        ("crm", "newsletter", "shop the sale", "email"),
        ("crm", "sms", "", "email"),
        ("crm", "web push", "", "email"),
        ("blog.example", "referral", "", "referral"),
        ("partner", "app", "", "referral"),
        ("partner", "poster", "", "unknown"),
        ("", "", "", "unknown"),
    ],
)
def test_source_and_medium_follow_the_default_channel_group(
    source: str, medium: str, campaign: str, channel: str
) -> None:
    assert channel_of(source, medium, campaign) == channel


@pytest.mark.parametrize(
    ("host", "channel"),
    [
        ("", "direct"),
        ("-", "direct"),
        ("www.google.com", "organic"),
        ("google.co.uk", "organic"),
        ("de.search.yahoo.com", "organic"),
        ("cn.bing.com", "organic"),
        ("search.brave.com", "organic"),
        ("com.google.android.googlequicksearchbox", "organic"),
        ("docs.google.com", "referral"),
        ("gemini.google.com", "referral"),
        ("finance.yahoo.com", "referral"),
        ("chatgpt.com", "referral"),
        ("notgoogle.com", "referral"),
        ("google.evil.example", "referral"),
        ("l.instagram.com", "social"),
        ("t.co", "social"),
        ("t.com", "referral"),
        ("x.com", "social"),
        ("x.org", "referral"),
        ("de.pinterest.com", "social"),
        ("mail.google.com", "email"),
        ("outlook.live.com", "email"),
        ("deref-gmx.net", "email"),
        ("webmail.provider.example", "email"),
        ("www.smile.amazon.co.jp", "organic"),
        ("news.example", "referral"),
    ],
)
def test_referring_hosts_have_a_channel(host: str, channel: str) -> None:
    assert referrer_channel(host, "shop.example") == channel


@pytest.mark.parametrize("host", ["shop.example", "www.shop.example", "pay.shop.example", "SHOP.example"])
def test_the_shops_own_hosts_are_internal(host: str) -> None:
    assert referrer_channel(host, "www.shop.example") == "internal"
    assert referrer_channel("workshop.example", "www.shop.example") == "referral"


@pytest.mark.parametrize(
    ("url", "referrer", "entry"),
    [
        (SHOP, "", Entry("direct", "")),
        (SHOP, "https://www.bing.com/search?q=shoes", Entry("organic", "")),
        (SHOP + "?gclid=abc", "https://www.google.com/", Entry("paid", "")),
        (SHOP + "?gclid=abc&utm_medium=organic&utm_campaign=a", "", Entry("paid", "a")),
        (SHOP + "?utm_source=crm&utm_medium=email&utm_campaign=may", "https://mail.example/", Entry("email", "may")),
        (SHOP + "?mtm_source=facebook&mtm_campaign=may", "", Entry("social", "may")),
        (SHOP + "?pk_medium=banner", "", Entry("paid", "")),
        # no rule knows the medium: the referrer decides, and without one nothing does
        (SHOP + "?utm_medium=poster&utm_campaign=may", "https://www.reddit.com/", Entry("social", "may")),
        (SHOP + "?utm_medium=poster&utm_campaign=may", "", Entry("unknown", "may")),
        ("/cart", "https://news.example/a", Entry("referral", "")),
        ("", "", Entry("direct", "")),
        ("https://[broken", "https://www.google.com/", Entry("organic", "")),
        (SHOP, "about:blank", Entry("direct", "")),
    ],
)
def test_an_entry_is_told_from_tags_then_click_ids_then_the_referrer(url: str, referrer: str, entry: Entry) -> None:
    assert entry_of(url, referrer) == entry


def test_every_channel_group_has_one_of_our_channels() -> None:
    assert set(CHANNEL_GROUPS.values()) == set(CHANNELS) - {"internal"}
    assert CHANNEL_GROUPS["Cross-network"] == "paid"
    assert CHANNEL_GROUPS["Organic Video"] == "social"
    assert CHANNEL_GROUPS["Mobile Push Notifications"] == "email"


def test_groups_and_rules_agree() -> None:
    examples = {
        ("google", "cpc"): "Paid Search",
        ("facebook", "cpc"): "Paid Social",
        ("partner", "affiliate"): "Affiliates",
        ("google", "organic"): "Organic Search",
        ("vimeo.com", "referral"): "Organic Video",
        ("crm", "sms"): "SMS",
        ("partner", "referral"): "Referral",
        ("partner", "poster"): "Unassigned",
    }
    for (source, medium), group in examples.items():
        assert channel_of(source, medium) == CHANNEL_GROUPS[group]
