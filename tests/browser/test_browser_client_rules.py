"""What the browser client decides by itself, it decides as the service and the history's readers do."""

from __future__ import annotations

import random
from itertools import product

from features import channels
from features.agents import device_of
from features.channels import entry_of
from features.events import CONSENTS, EVENT_NAMES
from serving.consent import of_purposes
from tests.browser.client_build import built, module, run
from tests.features import test_agents, test_channels

SHOP = "https://www.shop.example/"


def test_its_own_tests_and_the_size_of_its_files() -> None:
    built()
    run("npm", "run", "--silent", "test")


def test_it_knows_every_event_name() -> None:
    (names,) = module("m.NAMES", "vocabulary", [None])
    assert tuple(names.split(" ")) == EVENT_NAMES


def test_what_is_sent_of_an_address_tells_channel_and_campaign_as_all_of_it_does() -> None:
    hosts = ["www.google.co.uk", "mail.google.com", "pay.shop.example", "shop.example", "a.b", *channels._SITES]
    apps = [f"android-app://{site}/" for site in channels._SITES if site.startswith(("com.", "org."))]
    cases = [(SHOP, f"https://{host}/path?q=1") for host in hosts] + [(SHOP, app) for app in apps]
    (marked,) = test_channels.test_an_entry_is_told_from_tags_then_click_ids_then_the_referrer.pytestmark
    cases += [(url, referrer) for url, referrer, _ in marked.args[1] if url.startswith(SHOP) and referrer != "-"]
    (tagged,) = test_channels.test_source_and_medium_follow_the_default_channel_group.pytestmark
    sources = ["", "google", "fb", "ig", "crm", "partner", "sms", "Newsletter", "(direct)", *channels._SITES]
    sources += [source for source, *_ in tagged.args[1]]
    mediums = ["", *(medium for _, medium, *_ in tagged.args[1]), *channels._SOCIAL_MEDIUM, *channels._EMAIL]
    mediums += ["ppc", "retargeting", "banner", "expandable", "interstitial", "mobile app", "notification", "cpm", "x"]
    campaigns = ["", "spring", "Cross-Network autumn"]
    drawn = random.Random(5)
    for source, medium in product(sources, mediums):
        prefix, campaign = drawn.choice(["utm", "mtm", "pk"]), drawn.choice(campaigns)
        query = {f"{prefix}_source": source, f"{prefix}_medium": medium, f"{prefix}_campaign": campaign}
        if drawn.random() < 0.05:
            query[drawn.choice([*channels._CLICK_IDS])] = drawn.choice(["", "abc"])
        encoded = "&".join(f"{key}={value.replace(' ', '%20')}" for key, value in query.items())
        cases.append((f"{SHOP}?{encoded}", drawn.choice(["", "https://www.google.com/", "https://news.example/a"])))
    split = "{ const u = new URL(c[0]); return m.entry(u.origin + u.pathname, u.search, c[1]) }"
    found = module(split, "pages", [list(case) for case in cases])
    for case, sent in zip(cases, found, strict=True):
        assert entry_of(sent["page"], sent["referrer"]) == entry_of(*case), (case, sent)
    assert len(cases) > 2_000
    private = [SHOP + "?q=shoes&email=jane@example.org&gclid=secret&utm_source=crm", "https://mail.example/inbox/jane"]
    (sent,) = module(split, "pages", [private])
    assert sent == {"page": SHOP + "?gclid=s&utm_source=crm", "referrer": "https://mail.example"}


def test_a_browser_is_the_device_that_the_service_takes_it_for() -> None:
    (marked,) = test_agents.test_a_string_names_a_kind_of_device.pytestmark
    agents = [agent for _, agent in marked.args[1] if "AppleWebKit" in agent or "Firefox" in agent]
    assert module("m.device(c)", "device", agents) == [device_of(agent) for agent in agents]
    assert len(agents) > 10


def test_tcf_purposes_grant_what_the_service_reads_of_a_string() -> None:
    subsets = [[number for number in range(1, 11) if bits >> (number - 1) & 1] for bits in range(1024)]
    cases = [{str(number): True for number in subset} for subset in subsets]
    for subset, (level, purposes) in zip(subsets, module("m.ofPurposes(c)", "signals", cases), strict=True):
        assert tuple(purposes) == of_purposes(subset)
        assert level == ("full" if "link" in purposes else "none")
        assert set(purposes) <= set(CONSENTS)


def test_googles_consent_types() -> None:
    granted, denied = "granted", "denied"
    cases = [
        {"analytics_storage": granted, "personalization_storage": granted},
        {"analytics_storage": granted, "personalization_storage": denied},
        {"analytics_storage": denied, "ad_storage": granted},
        {},
    ]
    assert module("m.ofTypes(c)", "signals", cases) == [
        ["full", ["measure", "link", "personalise"]],
        ["full", ["measure", "link"]],
        ["none", []],
        ["none", []],
    ]
