"""What the package decides by itself, it decides as the service and the browser client do."""

from __future__ import annotations

import doctest
import random
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from base64 import urlsafe_b64encode
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from lotse_django import consent as consent_module
from lotse_django import device as device_module
from lotse_django.consent import PURPOSES, of_tcf
from lotse_django.device import device
from lotse_django.outbox import Outbox, Verdict
from lotse_django.pages import _TAGS
from lotse_django.settings import Settings
from lotse_django.wire import Event, Fields, checked, events_of

from features.agents import device_of
from features.channels import entry_of
from features.events import CONSENTS
from serving.consent import of_tcf as service_of_tcf
from serving.intake import EventIn
from tests.features import test_agents
from tests.workspace import ROOT

PACKAGE = ROOT / "clients" / "django"


def test_the_examples_run() -> None:
    for module in (consent_module, device_module):
        assert doctest.testmod(module).attempted and not doctest.testmod(module).failed


def test_purposes_are_the_services() -> None:
    assert tuple(CONSENTS) == PURPOSES


def test_a_browser_is_the_device_that_the_service_takes_it_for() -> None:
    (marked,) = test_agents.test_a_string_names_a_kind_of_device.pytestmark
    agents = [agent for _, agent in marked.args[1] if "AppleWebKit" in agent or "Firefox" in agent]
    assert [device(agent) for agent in agents] == [device_of(agent) for agent in agents]
    assert len(agents) > 10


def test_a_tcf_string_grants_what_the_service_reads_of_it() -> None:
    for bits in range(1024):
        purposes = sum(1 << 24 - number for number in range(1, 11) if bits >> number - 1 & 1)
        core = 2 << 186 | purposes << 16
        text = urlsafe_b64encode(core.to_bytes(24, "big")).decode()
        read = service_of_tcf(text)
        assert read is not None and of_tcf(text) == set(read), text
    assert of_tcf("A" * 40) is None and of_tcf("*" * 40) is None


def test_what_is_sent_of_a_query_tells_channel_and_campaign_as_all_of_it_does() -> None:
    drawn = random.Random(7)
    names = [
        "utm_source",
        "utm_medium",
        "utm_campaign",
        "mtm_source",
        "pk_medium",
        "gclid",
        "fbclid",
        "msclkid",
        "q",
        "email",
    ]
    for _ in range(2_000):
        pairs = [
            (drawn.choice(names), drawn.choice(["google", "cpc", "email", "may", "", "jane@x.org"])) for _ in range(4)
        ]
        query = "&".join(f"{name}={value}" for name, value in pairs)
        sent = "&".join(_TAGS.findall(query))
        assert not re.search(r"\b(q|email|fbclid)=", sent)
        shop, referrer = (
            "https://www.shop.example/",
            drawn.choice(["", "https://www.google.com/", "https://news.example/"]),
        )
        assert entry_of(f"{shop}?{sent}", referrer) == entry_of(f"{shop}?{query}", referrer), query


def test_an_event_has_the_services_fields_and_no_others() -> None:
    ours = {field.encode_name: field.default for field in msgspec.structs.fields(Event)}
    theirs = {field.encode_name: field.default for field in msgspec.structs.fields(EventIn)}
    # a server's clock is right; sessions are derived; a server does not know the visitor's clock
    assert set(theirs) - set(ours) == {"sent_at", "session", "utc_offset"} and set(ours) <= set(theirs)
    for name in (field.encode_name for field in msgspec.structs.fields(Fields)):
        if name != "declared":
            assert ours[name] == theirs[name], name


def test_an_order_is_an_event_a_product_and_its_value_counts_once() -> None:
    order = {"value": 99.8, "items": [{"item": "A", "price": 79.9}, {"item": "B", "price": 19.9}]}
    first, second = events_of({"page": "/order"}, order)
    assert first == {"page": "/order", "value": 99.8, "item": "A", "price": 79.9}
    assert second == {"page": "/order", "value": 0.0, "item": "B", "price": 19.9}
    assert list(events_of({}, {"item": "A"})) == [{"item": "A"}]


def test_a_page_does_not_overtake_what_its_visitor_did() -> None:
    counts, woken = Counter[str](), list[None]()
    outbox = Outbox(10, counts, lambda: woken.append(None))

    def event(number: int, visitor: str = "jane") -> Event:
        return checked({"visitor": visitor, "name": "page_view", "id": str(number), "time": number, "consent": ()})

    first = event(1)
    outbox.begin(first)
    assert not outbox.must_wait("jane") and outbox.batch() is None
    outbox.doubt(first)
    assert outbox.must_wait("jane") and not outbox.must_wait("john")
    outbox.put([event(2), event(3, "john")])
    # what is under way keeps back what its visitor did since, and nobody else
    batch = outbox.batch()
    assert batch and [one.id for one in batch.events] == ["3"]
    outbox.settle(batch, Verdict(is_final=True))
    outbox.failed(first)
    batch = outbox.batch()
    assert batch and [one.id for one in batch.events] == ["1", "2"] and outbox.must_wait("jane")
    assert outbox.batch() is batch  # the same request until it is answered
    outbox.settle(batch, Verdict(is_final=False))
    assert outbox.batch() is batch
    outbox.settle(batch, Verdict(is_final=True))
    assert not outbox.must_wait("jane") and len(outbox) == 0
    outbox.put(event(number) for number in range(4, 8))
    assert outbox.must_wait("jane")
    # the sound ones of a refused batch go again
    batch = outbox.batch()
    assert batch
    outbox.settle(batch, Verdict(is_final=True, refused={1}))
    batch = outbox.batch()
    assert batch and [one.id for one in batch.events] == ["4", "6", "7"]
    outbox.put(event(number, "john") for number in range(10, 20))
    assert len(outbox) == 10 and counts == {"delivered": 3, "refused": 1, "dropped": 3}


def test_every_setting_is_in_the_readme_with_its_default() -> None:
    readme = (PACKAGE / "README.md").read_text()
    for field in msgspec.structs.fields(Settings):
        row = re.search(rf"^\| `{field.encode_name}` \|(.*?) \|", readme, re.MULTILINE)
        assert row, field.encode_name
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if default is msgspec.NODEFAULT or default == "":
            assert row[1] == ""
        elif not isinstance(default, int | float) or isinstance(default, bool):
            assert row[1] == f" `{default!r}`".replace("'", '"')
        else:
            assert row[1] == f" `{int(default):_}`"


@pytest.mark.slow
def test_the_package_as_it_is_installed(tmp_path: Path) -> None:
    """From the wheel, without this checkout's folder: templates' tags and the mark of types are in it."""
    copy = shutil.copytree(PACKAGE, tmp_path / "package")
    command = [Path(sys.executable).with_name("uv"), "build", "--quiet", "--wheel", "--out-dir", tmp_path, copy]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("lotse_django-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        source = PACKAGE / "src"
        assert {str(path.relative_to(source)) for path in source.rglob("*.py")} | {"lotse_django/py.typed"} <= names
    version = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]["version"]
    assert wheel.name == f"lotse_django-{version}-py3-none-any.whl"
