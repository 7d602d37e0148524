"""Python's SDKs as clients: OpenFeature's over OFREP, GrowthBook's with remote evaluation and by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from growthbook import GrowthBook, GrowthBookClient, feature_repo
from growthbook.common_types import Options, UserContext
from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode

from serving.experiments.attributes import Names
from serving.experiments.configuration import parse
from serving.experiments.sdks import for_sdks
from serving.keys import KeyFile, Kind
from tests.workspace import Service, wait_until, workspace

CONTENT: dict[str, Any] = {
    "features": {
        "help": {
            "defaultValue": "none",
            "rules": [
                {"condition": {"purchases": {"$gt": 0}}, "force": "thanks"},
                {"key": "offer", "condition": {"cart_adds": {"$gte": 1}}, "variations": ["none", "banner"]},
                {"condition": {"country": "AT"}, "force": "austria"},
            ],
        },
        "price": {"defaultValue": 1.5, "rules": [{"condition": {"country": "DE"}, "force": 2}]},
        "insiders": {"defaultValue": False, "rules": [{"condition": {"country": {"$inGroup": "few"}}, "force": True}]},
        "rollout": {"defaultValue": False, "rules": [{"force": True, "coverage": 0.5}]},
        "own": {"defaultValue": 0, "rules": [{"variations": [0, 1], "hashAttribute": "account", "hashVersion": 2}]},
        "after_price": {
            "defaultValue": 0,
            "rules": [{"parentConditions": [{"id": "price", "condition": {"value": 2.0}}], "force": 1}],
        },
        "after_help": {
            "defaultValue": 0,
            "rules": [{"parentConditions": [{"id": "help", "condition": {"value": "banner"}}], "force": 1}],
        },
    },
    "experiments": {
        "offer": {
            "arms": ["control", "banner"],
            "goals": [{"name": "purchase", "column": "purchases", "primary": True}],
        }
    },
    "attributes": ["country", "account"],
    "savedGroups": {"few": ["LI"]},
}
KNOWN = Names(*[frozenset({"cart_adds", "purchases"})] * 2)


def given(*, secret: bool) -> dict[str, list[str]]:
    """The rules of each feature that go out."""
    found = for_sdks(parse(json.dumps(CONTENT).encode(), KNOWN), secret=secret)
    assert found["savedGroups"] == (CONTENT["savedGroups"] if secret else {})
    return {key: [rule["id"] for rule in feature["rules"]] for key, feature in found["features"].items()}


def test_a_public_key_gets_what_asks_for_nothing_but_what_callers_pass() -> None:
    assert given(secret=False) == {
        "help": ["2"], "price": ["0"], "insiders": [], "rollout": [], "own": ["0"], "after_price": ["0"],
        "after_help": [],
    }  # fmt: skip


def test_nobody_gets_rules_of_our_experiments() -> None:
    assert given(secret=True) == {
        "help": ["0", "2"], "price": ["0"], "insiders": ["0"], "rollout": ["0"], "own": ["0"], "after_price": ["0"],
        "after_help": [],
    }  # fmt: skip


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = workspace(tmp_path_factory.mktemp("sdks") / "work")
    (folder / "configs" / "experiments.json").write_text(json.dumps(CONTENT))
    service = Service(folder, "models.uri=").start()
    yield service
    service.stop()


def key_of(service: Service, kind: Kind) -> str:
    """A new key; the service follows within a second."""
    _, shown = KeyFile(service.folder / "lotse-data").create(kind, "shop")
    wanted = [200, 401]
    wait_until(lambda: [service.http.get(f"/api/features/{key}").status_code for key in (shown, "other")] == wanted)
    return shown


def test_growthbooks_sdk_evaluates_remotely(running: Service) -> None:
    """GrowthBook's own client against the service, on a socket; the key in its path is one of ours."""
    key = key_of(running, "public")

    async def values(client_key: str, token: str) -> dict[str, Any]:
        host = f"http://127.0.0.1:{running.port}"
        options = Options(api_host=host, client_key=client_key, remote_eval=True, refresh_strategy=None)
        client = GrowthBookClient(options)
        try:
            assert await client.initialize()
            user = UserContext(attributes={"id": token, "country": "DE"})
            return {name: await client.get_feature_value(name, "default", user) for name in ("help", "price")}
        finally:
            await client.close()

    http = running.http
    answer = http.post(f"/v1/events?flags=all&key={key}", json={"visitor": "anna", "name": "add_to_cart"})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert http.post("/api/eval/other", json={}).status_code == 401
    for body, status in ((b"{", 400), (b"[]", 422), (b'{"attributes": {"id": 7}}', 422)):
        assert http.post(f"/api/eval/{key}", content=body).status_code == status
    found = asyncio.run(values(key, told["session"]))
    assert found == {"help": told["flags"]["help"]["value"], "price": 2.0}
    assert asyncio.run(values(key, "nobody")) == {"help": "none", "price": 2.0}


def test_growthbooks_sdk_evaluates_by_itself(running: Service) -> None:
    """The features that its own client loads, again with its ETag, and what it makes of them."""
    public, secret = key_of(running, "public"), key_of(running, "secret")
    first = running.http.get(f"/api/features/{public}")
    assert set(first.json()) == {"status", "features", "savedGroups", "dateUpdated"}
    assert "purchases" not in first.text and "banner" not in first.text and "LI" not in first.text
    tag = first.headers["etag"]
    again = running.http.get(f"/api/features/{public}", headers={"if-none-match": tag})
    assert again.status_code == 304 and again.content == b"" and again.headers["etag"] == tag
    assert running.http.get(f"/api/features/{secret}", headers={"if-none-match": tag}).status_code == 200
    assert running.http.get("/api/features/other").status_code == 401

    def values(key: str, **attributes: Any) -> dict[str, Any]:
        client = GrowthBook(api_host=f"http://127.0.0.1:{running.port}", client_key=key, attributes=attributes)
        try:
            client.load_features()
            return {name: client.get_feature_value(name, "unknown") for name in CONTENT["features"]}
        finally:
            client.destroy()
            feature_repo.clear_cache()

    nothing = {"help": "none", "price": 1.5, "insiders": False, "rollout": False, "after_price": 0, "after_help": 0}
    by_public = values(public, country="DE", purchases=1, cart_adds=3, id="x", account="a")
    assert by_public.pop("own") in (0, 1)
    assert by_public == nothing | {"price": 2.0, "after_price": 1}
    by_secret = values(secret, country="LI", purchases=1, cart_adds=3, account="a")
    assert by_secret.pop("own") in (0, 1)
    assert by_secret == nothing | {"help": "thanks", "insiders": True}


def test_openfeatures_sdk_with_its_types(running: Service) -> None:
    key = key_of(running, "secret")
    headers = {"authorization": f"Bearer {key}"}
    http = running.http
    body = {"visitor": "bert", "name": "add_to_cart"}
    told = http.post("/v1/events?flags=all", json=body, headers=headers).json()
    provider = OFREPProvider(f"http://127.0.0.1:{running.port}", headers_factory=lambda: headers)
    try:
        api.set_provider(provider)
        client = api.get_client()
        for targeting_key in (told["session"], "bert"):
            context = EvaluationContext(targeting_key=targeting_key, attributes={"country": "DE"})
            offer = client.get_string_details("help", "default", context)
            assert (offer.value, offer.variant) == (told["flags"]["help"]["value"], told["flags"]["help"]["variant"])
            assert offer.reason == "SPLIT" and offer.error_code is None
            # 2 in the configuration, among floats: a float, or the SDK would take the default
            price = client.get_float_details("price", 0.0, context)
            assert (price.value, price.error_code) == (2.0, None) and isinstance(price.value, float)
            count = client.get_integer_details("after_price", 7, context)
            assert (count.value, count.error_code) == (1, None)
            assert client.get_boolean_details("insiders", True, context).value is False
            assert client.get_string_details("price", "x", context).error_code == ErrorCode.TYPE_MISMATCH
            assert client.get_string_details("other", "x", context).error_code == ErrorCode.FLAG_NOT_FOUND
        nobody = client.get_string_details("help", "x", EvaluationContext())
        assert nobody.error_code == ErrorCode.TARGETING_KEY_MISSING
    finally:
        api.clear_providers()
        provider.session.close()
