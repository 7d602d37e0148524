"""Keys: made and revoked by `lotse keys`, kept as hashes, followed by the services that run."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from features.settings import SettingsError
from serving.keys import FILE_NAME, KeyFile, Keys
from serving.keys_cli import keys as verbs
from tests.workspace import Service, lotse, wait_until, workspace


def test_what_is_kept_does_not_tell_the_key(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    key, shown = file.create("public", "shop", ["https://shop.example"])
    assert shown.startswith(f"lotse_pub_{key.id}_")
    kept = (tmp_path / FILE_NAME).read_text()
    assert shown.rpartition("_")[2] not in kept and key.sha256 in kept
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    assert file.read() == [key]


def test_only_the_whole_key_is_found(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    key, shown = file.create("secret", "server")
    keys = Keys(file)
    other = "0" if shown[-1] != "0" else "1"
    for _ in range(2):  # the second time from what is remembered
        assert keys.find(shown.encode()) == key
        for wrong in (shown[:-1], shown[:-1] + other, shown + "0", shown.replace("sec", "pub"), shown.upper(), "", "x"):
            assert keys.find(wrong.encode()) is None, wrong


def test_a_revoked_key_is_refused_and_opens_nothing(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    first, shown = file.create("secret", "server")
    keys = Keys(file)
    assert keys.find(shown.encode()) == first and not keys.follow()
    file.revoke(first.id)
    assert keys.follow() and keys.find(shown.encode()) is None
    assert keys.any  # a service whose last key was revoked is not open
    with pytest.raises(SettingsError, match="no key 'nobody'; keys that can be revoked: none"):
        file.revoke("nobody")


def test_keys_made_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    threads = [threading.Thread(target=KeyFile(tmp_path).create, args=("public", f"{n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key.name for key in KeyFile(tmp_path).read()) == [str(n) for n in range(8)]


def test_a_broken_file_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('{"id": 1}\n')
    with pytest.raises(SettingsError, match=r"keys\.jsonl: a line is no key"):
        KeyFile(tmp_path).read()


def test_a_service_that_others_can_reach_does_not_start_without_keys(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "work")
    refused = lotse(folder, "serve", "--host", "0.0.0.0")
    assert refused.returncode == 2 and "run: lotse keys create --kind secret" in refused.stderr
    refused = lotse(folder, "serve", "--set", "keys.required=true")
    assert refused.returncode == 2 and "there are no keys" in refused.stderr


def here(*arguments: str) -> Result:
    """A verb in this process: each of its own costs seconds."""
    return CliRunner().invoke(verbs, arguments)


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = workspace(tmp_path / "work")
    made = lotse(folder, "keys", "create", "--kind", "public", "--name", "shop", "--origins", "https://Shop.example/")
    assert made.returncode == 0, made.stderr
    monkeypatch.chdir(folder)
    shown = made.stdout.strip()
    assert shown.startswith("lotse_pub_")
    key_id = shown.split("_")[2]
    assert KeyFile(folder / "lotse-data").read()[0].origins == ("https://shop.example",)
    listed = here("list").stdout
    assert key_id in listed and "shop.ex" in listed and shown not in listed
    assert "refused from now on" in here("revoke", key_id).stdout
    bad = here("create", "--kind", "public", "--name", "shop", "--origins", "shop.example").exception
    assert isinstance(bad, SettingsError) and "expected scheme and host" in str(bad)


@pytest.mark.slow
def test_a_running_service_follows_its_keys(own_service: Callable[..., Service]) -> None:
    running = own_service("store.size_gib=0.05")  # the file is as long as it may grow, and all of it is searched
    event = {"visitor": "jane", "name": "page_view"}
    assert running.http.post("/v1/events", json=event).status_code == 200  # this machine only
    file = KeyFile(running.folder / "lotse-data")
    public, shown = file.create("public", "shop", ["https://shop.example"])
    wait_until(lambda: running.http.post("/v1/events", json=event).status_code == 401)
    refused = running.http.post("/v1/events", json=event)
    assert refused.headers["www-authenticate"] == "Bearer" and "Bearer <key>" in refused.json()["detail"]
    bearer = {"authorization": f"Bearer {shown}"}
    answer = running.http.post("/v1/events", json=event, headers=bearer)
    assert answer.status_code == 200
    token = answer.json()["session"]
    assert running.http.post(f"/v1/events?key={shown}", json=event).status_code == 200
    assert running.http.get(f"/v1/sessions/{token}", headers=bearer).status_code == 200
    for method, path in (("GET", "/metrics"), ("POST", "/v1/score"), ("GET", "/v1/features"), ("POST", "/describe")):
        assert running.http.request(method, path).status_code == 401, path
        assert running.http.request(method, path, headers=bearer).status_code == 403, path
    other = running.http.post("/v1/events", json=event, headers={**bearer, "origin": "https://other.example"})
    assert other.status_code == 403 and "pages of this origin" in other.json()["detail"]
    assert running.http.get("/readyz").status_code == 200  # orchestrators have no key
    _, secret = file.create("secret", "server")
    bearer = {"authorization": f"Bearer {secret}"}
    wait_until(lambda: running.http.get("/metrics", headers=bearer).status_code == 200)
    assert running.http.post("/describe", json={}, headers=bearer).json()["feature_digest"]
    assert running.http.get(f"/v1/features?key={secret}").status_code == 401  # it would be in logs
    file.revoke(public.id)
    wait_until(lambda: running.http.post(f"/v1/events?key={shown}", json=event).status_code == 401)
    running.stop()
    text = "".join(path.read_text(errors="replace") for path in running.folder.rglob("*") if path.is_file())
    assert shown not in text and secret not in text
