"""The audit of the locked packages: what fails it, and what it says where nothing could be asked."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REPORT = {
    "dependencies": [
        {"name": "good", "version": "1", "vulns": []},
        {"name": "unseen", "skip_reason": "not found"},
        {"name": "bad", "version": "2", "vulns": [
            {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.1"]},
            {"id": "PYSEC-2", "aliases": [], "fix_versions": []},
        ]},
    ]
}  # fmt: skip


def test_what_can_be_mended_must_be(audit: ModuleType) -> None:
    assert audit.judge(REPORT, {}) == (["bad 2: PYSEC-1, fixed in 2.1"], 2, 1)


@pytest.mark.parametrize("named", ["PYSEC-1", "CVE-1"])
def test_what_is_ignored_has_a_reason(audit: ModuleType, named: str) -> None:
    assert audit.judge(REPORT, {named: "not used"})[0] == []
    assert all(audit.IGNORED.values())


def test_a_service_that_cannot_be_asked_is_told(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "SERVICES", ("nobody",))  # pip-audit knows no such service
    assert sys.executable and audit.main() == 0
    assert "NOTHING WAS AUDITED" in capsys.readouterr().out
