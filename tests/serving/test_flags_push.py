"""Pushes of the configuration: checked whole, compared, kept; by the command line to a service of two workers."""

from __future__ import annotations

import asyncio
import copy
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from serving.app import App
from serving.experiments.attributes import Names
from serving.experiments.changes import phase_problems
from serving.experiments.configuration import parse
from serving.experiments.history import History, Version, merged
from serving.flags_cli import flags as verbs
from serving.keys import KeyFile
from tests.serving.in_process import client, engine_of, start
from tests.workspace import Service, lotse, wait_until, workspace

KNOWN = Names(*[frozenset({"bounce", "cart_adds", "purchases", "events"})] * 2)
BANNER: dict[str, Any] = {
    "features": {
        "banner": {
            "defaultValue": False,
            "rules": [{"key": "offer", "condition": {"cart_adds": {"$gte": 1}}, "variations": [False, True]}],
        }
    },
    "experiments": {
        "offer": {
            "arms": ["control", "banner"],
            "goals": [{"name": "purchase", "column": "purchases", "primary": True}],
        }
    },
}


def changed(patch: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = merged(copy.deepcopy(BANNER), patch)
    return found


def of_experiment(**changes: Any) -> dict[str, Any]:
    return changed({"experiments": {"offer": changes}})


def of_rule(**changes: Any) -> dict[str, Any]:
    found = copy.deepcopy(BANNER)
    found["features"]["banner"]["rules"][0] |= changes
    return found


RULE_BEFORE = changed({})
RULE_BEFORE["features"]["banner"]["rules"].insert(0, {"condition": {"purchases": {"$gt": 0}}, "force": False})


@pytest.mark.parametrize(
    ("new", "told"),
    [
        (of_experiment(shares=[0.4, 0.6]), "shares"),
        (of_experiment(unit="visitor"), "unit"),
        (of_experiment(goals=[{"name": "more", "kind": "numeric", "column": "events", "primary": True}]), "goals"),
        (of_experiment(allocation={"name": "thompson"}, holdback=0.1), "allocation"),
        (of_rule(condition={"cart_adds": {"$gte": 2}}), "targeting"),
        (of_rule(namespace=["checkout", 0, 0.5]), "targeting"),
        (of_rule(variations=[False, "large"]), "variations"),
        (RULE_BEFORE, "targeting"),
        (of_experiment(status="draft"), 'set "status": "stopped"'),
        (of_experiment(phase=2, shares=[0.4, 0.6]), ""),
        (of_experiment(killed=["banner"]), ""),
        (of_experiment(status="stopped", winner="banner", shares=[0.4, 0.6]), ""),
        (of_experiment(name="A banner", hypothesis="It helps."), ""),
        (of_rule(name="for people"), ""),
        (changed({"features": {"other": {"defaultValue": 1}}, "attributes": ["country"]}), ""),
    ],
)
def test_what_needs_a_new_phase(new: dict[str, Any], told: str) -> None:
    old = parse(json.dumps(BANNER).encode(), KNOWN)
    problems = list(phase_problems(old, parse(json.dumps(new).encode(), KNOWN)))
    assert (told in problems[0]) if told else not problems
    if told and "status" not in told:
        assert problems[0].startswith("$.experiments.offer.phase: ") and 'set "phase": 2' in problems[0]
        # a draft may become anything
        drafted = parse(json.dumps(of_experiment(status="draft")).encode(), KNOWN)
        assert not list(phase_problems(drafted, parse(json.dumps(new).encode(), KNOWN)))


def test_a_phase_that_has_been_does_not_come_again() -> None:
    old = parse(json.dumps(of_experiment(phase=3)).encode(), KNOWN)
    (problem,) = phase_problems(old, parse(json.dumps(BANNER).encode(), KNOWN))
    assert "1 has been; the latest is 3, so the next is 4" in problem


def service(folder: Path, *overrides: str) -> App:
    path = folder / "experiments.json"
    path.write_text(json.dumps(BANNER))
    return start(folder, f"experiments.file={path}", "models.heads=[]", *overrides)


def test_a_push_is_checked_compared_kept_and_rolled_back(tmp_path: Path) -> None:
    app = service(tmp_path, "experiments.versions=4")
    path = tmp_path / "experiments.json"

    async def run() -> None:
        async with client(app) as http:

            async def ask(method: str, where: str = "", status: int = 200, **more: Any) -> Any:
                answer = await http.request(method, f"/v1/experiments{where}", **more)
                assert answer.status_code == status, answer.text
                return answer.json() | {"tag": answer.headers.get("etag", "")}

            first = await ask("GET")
            assert first["configuration"] == BANNER and first["error"] == "" and first["tag"] == f'"{first["version"]}"'
            added = {"features": {"help": {"defaultValue": "none"}}}
            tried = await ask("PATCH", "?dry_run=true", json=added)
            assert tried["changes"] == {"features": {"added": ["help"], "changed": [], "removed": []}}
            assert tried["dry_run"] and (await ask("GET"))["version"] == first["version"]
            pushed = await ask("PATCH", json=added, headers={"if-match": first["tag"]})
            assert pushed["version"] == tried["version"] and not pushed["dry_run"]
            assert json.loads(path.read_text()) == BANNER | {"features": {**BANNER["features"], **added["features"]}}
            told = await http.post("/v1/events?flags=all", json={"visitor": "anna", "name": "page_view"})
            assert told.json()["flags"]["help"] == {"value": "none"}  # at once, by the worker that was asked

            # who has not seen this version overwrites nothing
            refused = await ask("PUT", "", 412, json=BANNER, headers={"if-match": first["tag"]})
            assert refused["version"] == pushed["version"] and pushed["version"] in refused["detail"]
            shares = {"experiments": {"offer": {"shares": [0.1, 0.9]}}}
            for where in ("", "?dry_run=true"):
                refused = await ask("PATCH", where, 422, json=shares)
                assert 'set "phase": 2' in refused["detail"]
                assert refused["changes"]["experiments"]["changed"] == ["offer"]
            assert (await ask("GET"))["version"] == pushed["version"]
            phase = await ask("PATCH", json={"experiments": {"offer": {"shares": [0.1, 0.9], "phase": 2}}})

            found = await ask("GET", "/versions")
            assert [one["version"] for one in found["versions"]] == [a["version"] for a in (phase, pushed, first)]
            assert [one["how"] for one in found["versions"]] == ["patch", "patch", "file"]
            assert all("configuration" not in one and "by" not in one for one in found["versions"])
            assert (await ask("GET", f"/versions/{first['version']}"))["configuration"] == BANNER
            await ask("GET", "/versions/other", 404)
            # back to the one before, whatever phase it had; then a named one
            assert (await ask("POST", "/rollback"))["version"] == pushed["version"]
            back = await ask("POST", f"/rollback?version={first['version']}&dry_run=true")
            assert back["version"] == first["version"] and back["changes"]["features"]["removed"] == ["help"]
            await ask("POST", f"/rollback?version={first['version']}")
            assert json.loads(path.read_text()) == BANNER
            await ask("POST", "/rollback?version=0000000000000000", 404)
            newest = (await ask("GET", "/versions"))["versions"]
            assert [one["how"] for one in newest] == ["rollback", "rollback", "patch", "patch"]  # four are kept

            # nothing is written where nothing changes, and a file that was mended by hand is noted before it goes
            before = path.stat().st_ino
            await ask("PUT", json=BANNER)
            assert path.stat().st_ino == before
            path.write_text(json.dumps(BANNER | {"attributes": ["country"]}))
            await ask("PUT", json=BANNER)
            assert [one["how"] for one in (await ask("GET", "/versions"))["versions"]][:2] == ["put", "file"]

    asyncio.run(run())
    assert stat.S_IMODE(next((tmp_path / "history").glob("*.json")).stat().st_mode) == 0o600


def x(**rule: Any) -> dict[str, Any]:
    """A patch that adds a feature with this rule."""
    return {"features": {"x": {"defaultValue": 1, "rules": [rule]}}}


@pytest.mark.parametrize(
    ("patch", "told"),
    [
        ({"feature": {}}, "$.feature: unknown section; did you mean 'features'?"),
        ({"features": {"banner": {"defaultvalue": 1}}}, "$.features.banner.defaultvalue: unknown key; did you mean"),
        (x(conditon={}, force=2), "$.features.x.rules[0].conditon: unknown key; did you mean 'condition'?"),
        (x(condition={"bounce": {"$greater": 1}}, force=2), "rules[0].condition.bounce: unknown operator '$greater'"),
        (x(condition={"$xor": []}, force=2), "no operator between conditions"),
        (x(force=1, coverage="half"), "$.features.x.rules[0].coverage"),
        ({"features": {"x": {"defaultValue": 1, "rules": {}}}}, "$.features.x.rules"),
        ({"features": {"x": 7}}, "$.features.x: expected an object"),
        ({"features": []}, "$.features: expected an object"),
        ({"experiments": []}, "$.experiments: expected an object"),
        ({"experiments": {"y": {"arms": [], "goals": []}}}, "$.experiments.y.arms"),
        ({"experiments": {"offer": {"arm": ["a", "b"]}}}, "$.experiments.offer.arm: unknown key; allowed there: name"),
        ({"experiments": {"other": BANNER["experiments"]["offer"]}}, "no rule of any feature names it"),
        ({"features": None}, "no rule of any feature names it"),
        ({"attributes": "country"}, "$.attributes"),
        ("nothing", "expected an object"),
    ],
)  # fmt: skip
def test_a_bad_push_is_refused_with_its_place_and_changes_nothing(tmp_path: Path, patch: Any, told: str) -> None:
    app = service(tmp_path)

    async def run() -> None:
        async with client(app) as http:
            version = engine_of(app).experiments.configuration.version
            answer = await http.patch("/v1/experiments", json=patch)
            assert answer.status_code == 422 and told in answer.json()["detail"], answer.text
            assert (await http.get("/v1/experiments")).json()["version"] == version
            assert not (await http.get("/v1/experiments/versions")).json()["versions"]

    asyncio.run(run())
    assert json.loads((tmp_path / "experiments.json").read_text()) == BANNER


def test_a_file_that_is_broken_by_hand_is_told_and_replaced(tmp_path: Path) -> None:
    app = service(tmp_path, "server.body_limit_bytes=5000")

    async def run() -> None:
        async with client(app) as http:
            (tmp_path / "experiments.json").write_text("{")
            await engine_of(app).experiments.follow()
            found = (await http.get("/v1/experiments")).json()
            assert "not valid JSON" in found["error"] and found["configuration"] == BANNER
            assert (await http.patch("/v1/experiments", json={})).status_code == 200  # of nothing: nothing runs
            assert (await http.put("/v1/experiments", json=BANNER)).status_code == 200
            found = (await http.get("/v1/experiments")).json()
            assert found["error"] == "" and found["configuration"] == BANNER
            long = {"features": {f"feature-{number}": {"defaultValue": "x" * 40} for number in range(60)}}
            for method, body in (("PUT", long), ("PATCH", {"features": {"long": {"defaultValue": "y" * 4700}}})):
                refused = await http.request(method, "/v1/experiments", json=body)
                assert refused.status_code == 413, refused.text

    asyncio.run(run())


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    app = service(tmp_path, f"experiments.history={tmp_path}/experiments.json/history")

    async def run() -> None:
        async with client(app) as http:
            refused = await http.put("/v1/experiments", json={})
            assert refused.status_code == 503 and "experiments.history" in refused.json()["detail"]

    asyncio.run(run())
    assert json.loads((tmp_path / "experiments.json").read_text()) == BANNER


def test_the_order_of_versions_survives_a_clock_that_is_set_back(tmp_path: Path) -> None:
    history = History(tmp_path, 2)
    for at, version in ((5000, "a"), (4000, "b"), (3000, "a")):
        history.add(Version(version, at, "put", configuration={"at": at}))
    assert [one.version for one in history.newest_first()] == ["a", "b"]
    found = history.find("a")
    assert found is not None and found.configuration == {"at": 3000}
    assert history.find("../a") is None and history.find("*") is None


def test_pushes_by_the_command_line_reach_both_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = Service(workspace(tmp_path / "work"), "models.uri=", "models.heads=[]", "server.workers=2")
    file, new = running.folder / "configs" / "experiments.json", running.folder / "new.json"
    file.write_text(json.dumps(BANNER))
    keys = KeyFile(running.folder / "lotse-data")
    (key, secret), (_, public) = keys.create("secret", "ci"), keys.create("public", "page")
    monkeypatch.chdir(running.folder)
    running.start()

    def flags(*arguments: str, key: str = secret) -> Result:
        told = {"LOTSE_KEY": key, "LOTSE_URL": f"http://127.0.0.1:{running.port}", "COLUMNS": "200"}
        return CliRunner().invoke(verbs, arguments, env=told)

    def seen() -> set[str]:
        """What workers run, as new connections find it."""
        found = set()
        for _ in range(12):
            with running.client() as http:
                answer = http.get("/v1/experiments", headers={"authorization": f"Bearer {secret}"})
                found.add(answer.json()["version"])
        return found

    try:
        (first,) = seen()
        shown = flags("show")
        assert json.loads(shown.stdout) == BANNER and first in shown.stderr
        new.write_text(json.dumps(of_experiment(killed=["banner"])))
        assert "experiment offer: running, phase 1, control | banner" in flags("check", str(new)).stdout
        tried = flags("push", str(new), "--dry-run", "--if-version", first)
        assert "experiments changed: offer" in tried.stdout and "would run" in tried.stdout
        assert seen() == {first}
        assert flags("push", str(new)).exit_code == 0
        wait_until(lambda: first not in seen())
        (second,) = seen()
        new.write_text('{"experiments": {"offer": {"shares": [0.2, 0.8]}}}')
        refused = flags("push", str(new), "--patch")
        assert "experiments changed: offer" in refused.stdout and 'set "phase": 2' in str(refused.exception)
        assert second in str(flags("push", str(new), "--patch", "--if-version", first).exception)
        assert seen() == {second}
        told = flags("history").stdout
        assert f"{second} (runs)" in told and first in told and key.id in told and secret not in told
        assert flags("rollback").exit_code == 0
        wait_until(lambda: seen() == {first})
        for other in (public, ""):
            assert "set LOTSE_KEY to a secret key" in str(flags("push", str(file), key=other).exception)
        # a draft may ask for what is not served yet, and cannot start; as a command of its own
        draft = merged(of_rule(condition={"uplift": {"$gt": 0}}), {"experiments": {"offer": {"status": "draft"}}})
        new.write_text(json.dumps(draft))
        assert flags("push", str(new), "--dry-run").exit_code == 1  # what has run is no draft again
        done = lotse(running.folder, "flags", "check", str(new))
        assert done.returncode == 2 and "drafts started: $.features.banner.rules[0]: unknown attribute" in done.stderr
    finally:
        running.stop()
    assert "Traceback" not in running.log.read_text()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_origin_pushes_nothing_without_a_key(tmp_path: Path, headers: dict[str, str]) -> None:
    """A roll-back needs neither a body nor a header that a browser would ask about first."""
    app = start(tmp_path, f"experiments.file={tmp_path}/experiments.json")

    async def run() -> tuple[list[int], list[int]]:
        async with client(app) as http:
            own = {"Origin": str(http.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
            pushed = [await http.put("/v1/experiments", json=one, headers=own) for one in (BANNER, {})]
            refused = [
                await http.post("/v1/experiments/rollback", headers=headers),
                await http.patch("/v1/experiments", json=BANNER, headers=headers),
            ]
            return [one.status_code for one in pushed], [one.status_code for one in refused]

    pushed, refused = asyncio.run(run())
    assert pushed == [200, 200] and refused == [403, 403]
    assert engine_of(app).experiments.configuration.content == {}
