"""A wrong setting is named by `manage.py check`, and costs no page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from lotse_django.settings import read

from tests.workspace import ROOT

RIGHT: dict[str, Any] = {"URL": "http://127.0.0.1:3000", "KEY": f"lotse_sec_{'0' * 12}_{'1' * 64}"}


def check(lotse: Any, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """`manage.py check` of the shop."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "clients" / "django" / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "SHOP": json.dumps({"LOTSE": lotse, **more})}
    environment["DJANGO_SETTINGS_MODULE"] = "tests.clients.django_shop.settings"
    command = [sys.executable, "-m", "django", "check", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_right_settings_have_nothing_to_tell() -> None:
    done = check({**RIGHT, "FLAGS": ["help_offer"], "CONSENT": "tests.clients.django_shop.consent.of_request"})
    assert done.returncode == 0 and "no issues" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("lotse", "told"),
    [
        (None, "LOTSE is not set, expected a dict"),
        ([], "LOTSE is of type list, expected a dict"),
        ({}, "LOTSE['URL'] is missing"),
        ({"URL": "lotse.example"}, "LOTSE['URL'] is no address"),
        ({**RIGHT, "TIMEOUT": 30}, "LOTSE['TIMEOUT'] is no setting of Lotse"),
        ({**RIGHT, "TIMEOUT_MS": "30"}, "LOTSE['TIMEOUT_MS'] is not as expected: Expected `int`, got `str`"),
        ({**RIGHT, "TIMEOUT_MS": 0}, "LOTSE['TIMEOUT_MS'] is not as expected: Expected `int` >= 1"),
        ({**RIGHT, "FLAGS": "some"}, "LOTSE['FLAGS'] is not as expected"),
        ({**RIGHT, "COOKIE": "a b"}, "LOTSE['COOKIE'] is not as expected"),
        ({**RIGHT, "CONSENT": "shop.no_such"}, "LOTSE['CONSENT'] cannot be used: No module named 'shop'"),
        ({**RIGHT, "VISITOR": 7}, "LOTSE['VISITOR'] cannot be used: expected a function, found of type int"),
        ({**RIGHT, "KEY": "lotse_pub_1"}, "LOTSE['KEY'] is no secret key"),
        ({**RIGHT, "SCRIPT": "lotse.js", "PUBLIC_KEY": RIGHT["KEY"]}, "which every visitor would see"),
    ],
)
def test_what_is_wrong_is_named(lotse: Any, told: str) -> None:
    settings, wrong = read(lotse)
    assert settings is None
    (one,) = wrong
    assert one.hint and told in (f"LOTSE[{one.key!r}] {one.problem}" if one.key else one.problem)
    assert RIGHT["KEY"] not in str(wrong)


def test_all_that_is_wrong_is_told_at_once() -> None:
    done = check({"TIMEOUT_MS": "x", "QUEUE": 0, "no": 1})
    assert done.returncode == 1
    for told in ("['URL'] is missing", "['TIMEOUT_MS']", "['QUEUE']", "['no'] is no setting"):
        assert f"LOTSE{told}" in done.stderr
    told = check({**RIGHT, "SCRIPT": "lotse.js", "COOKIE": "other"}).stderr
    assert "LOTSE['COOKIE'] is 'other', and the browser client knows 'lotse' only" in told


def test_a_shop_without_the_middleware() -> None:
    assert "MIDDLEWARE has no Lotse" in check(RIGHT, middleware=False).stderr


def test_openfeature_that_is_not_installed() -> None:
    done = check({**RIGHT, "OPENFEATURE": True}, without=["openfeature"])
    assert "LOTSE['OPENFEATURE']: OpenFeature is not installed; pip install lotse-django[openfeature]" in done.stderr
    assert "lotse.E004" in done.stderr and "Traceback" not in done.stderr


def test_before_a_deployment() -> None:
    told = check({**RIGHT, "URL": "http://lotse.shop.example"}, "--deploy").stderr
    assert "the secret key and what visitors do cross the network in the clear" in told and "lotse.W003" not in told
    told = check({"URL": "http://127.0.0.1:3000"}, "--deploy").stderr
    assert "LOTSE['KEY'] is not set" in told and "lotse.W002" not in told


def test_what_settings_show_of_themselves_holds_no_key() -> None:
    settings, wrong = read(RIGHT)
    assert settings and not wrong
    assert RIGHT["KEY"] not in f"{settings!r} {settings}"
