"""The embedded store encrypted at rest: nothing readable on disk, and the wrong key is told at the start."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import pytest

from features.settings import SettingsError
from serving.settings import StoreSettings
from serving.stores import Change, Closed, Store, StoreError, Value, open_store
from serving.stores.encryption import ENVIRONMENT, Seal
from tests.workspace import lotse, workspace

KEY, OTHER = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
NAME = b"12345678"


class Put:
    """A visit that leaves a text, and closes a session with the same."""

    def __init__(self, text: bytes) -> None:
        self.key, self.entry, self.text, self.found = NAME, None, text, b""

    def others(self) -> Sequence[bytes]:
        return ()

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change:
        self.found = b"" if value is None else bytes(value)
        return Change(self.text, 5, None, [Closed(NAME + b"closed00", self.text)])


def opened(folder: Path, monkeypatch: pytest.MonkeyPatch, key: str = "") -> Store:
    monkeypatch.setenv(ENVIRONMENT, key)
    return open_store(StoreSettings(url=f"embedded:{folder / 'live'}", size_gib=0.01))


def test_nothing_of_a_value_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path, monkeypatch, KEY)
    for _ in range(3):
        store.apply([Put(b"what jane did")])
    batch = store.claim(10, 1_000, 500)
    assert batch is not None and batch.sessions == [Closed(NAME + b"closed00", b"what jane did")]  # type: ignore[union-attr]
    store.close()
    assert b"jane" not in (tmp_path / "live" / "data.mdb").read_bytes()
    again = opened(tmp_path, monkeypatch, KEY)
    visit = Put(b"more")
    again.apply([visit])
    assert visit.found == b"what jane did" and again.read(NAME) == b"more"
    again.close()


def test_the_wrong_key_and_none_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path, monkeypatch, KEY).close()
    with pytest.raises(SettingsError, match=r"is encrypted; set LOTSE_STORE_KEY"):
        opened(tmp_path, monkeypatch)
    with pytest.raises(SettingsError, match="encrypted with another key"):
        opened(tmp_path, monkeypatch, OTHER)
    opened(tmp_path, monkeypatch, KEY).close()


def test_a_store_that_was_not_encrypted_is_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = opened(tmp_path, monkeypatch)
    plain.apply([Put(b"plain")])
    plain.close()
    with pytest.raises(SettingsError, match="not encrypted, but LOTSE_STORE_KEY is set; move the folder away"):
        opened(tmp_path, monkeypatch, KEY)
    again = opened(tmp_path, monkeypatch)
    assert again.read(NAME) == b"plain"
    again.close()


@pytest.mark.parametrize("key", ["short", "x" * 44, base64.b64encode(b"k" * 16).decode()])
def test_what_is_no_key_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    with pytest.raises(SettingsError, match="openssl rand -base64 32"):
        opened(tmp_path, monkeypatch, key)


def test_a_value_is_bound_to_its_key_and_cannot_be_changed() -> None:
    seal = Seal(bytes(32))
    value = seal.close(b"record", b"jane")
    assert seal.open(memoryview(value), b"jane") == b"record"
    for wrong, key in ((value, b"john"), (value[:-1] + bytes([value[-1] ^ 1]), b"jane"), (value[:20], b"jane")):
        with pytest.raises(StoreError, match="was not written with this LOTSE_STORE_KEY"):
            seal.open(wrong, key)


def test_no_nonce_comes_twice() -> None:
    seal = Seal(bytes(32))
    seal._count = 2**32 - 2  # the count is full, and another prefix is drawn
    nonces = {seal.close(b"", b"")[:12] for _ in range(5)}
    assert len(nonces) == 5 and len({nonce[:8] for nonce in nonces}) == 2


def test_the_service_does_not_start_with_a_wrong_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = workspace(tmp_path / "work")
    monkeypatch.setenv(ENVIRONMENT, OTHER)
    opened(folder / "lotse-data", monkeypatch, KEY).close()
    monkeypatch.setenv(ENVIRONMENT, OTHER)
    refused = lotse(folder, "serve")
    assert refused.returncode == 2 and "encrypted with another key" in refused.stderr
