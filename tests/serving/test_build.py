"""`lotse build`: a Bento that serves in another folder, with no registry and no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workspace import Service, environment, lotse

EVENT = {"visitor": "jane", "name": "view_item", "item": "sku-1"}


class Bento(Service):
    """`bentoml serve` of a Bento's folder, in a folder with nothing in it."""

    def __init__(self, folder: Path, bento: Path) -> None:
        super().__init__(folder)
        self.bento = bento

    def begin(self) -> None:
        command = [sys.executable, "-m", "bentoml", "serve", str(self.bento), "--port", str(self.port)]
        plain = {**environment(), "BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(self.folder / "bentoml")}
        with self.log.open("a") as file:
            self.process = subprocess.Popen(command, cwd=self.folder, env=plain, stdout=file, stderr=file)


@pytest.mark.slow
def test_a_bento_serves_its_models_anywhere(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "built"))
    monkeypatch.setattr("tests.workspace.environment", lambda: dict(os.environ))
    built = lotse(trained, "build")
    assert built.returncode == 0, built.stderr
    name, version = built.stdout.strip().split(":")
    bento = tmp_path / "built" / "bentos" / name / version
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    running = Bento(folder, bento).start()
    try:
        answer = running.http.post("/v1/events", json=EVENT).json()
        assert set(answer["models"]) == {"bounce", "conversion", "exit"} and "reasons" not in answer
        page = running.http.get("/metrics").text
        assert 'lotse_model_info{head="exit",version="1"} 1.0' in page
        # the console comes along with all of its files, and its process finds the code where it lies
        assert 'data-views="live' in running.http.get("/console").text
        for name in ("console.js", "live.js", "console.css", "plotly.min.js"):
            assert running.http.get(f"/console/static/{name}").status_code == 200, name
        with running.http.stream("GET", "/v1/insight/live", timeout=60) as told:
            assert any(line == "event: rows" for line in told.iter_lines())
        assert not list(tmp_path.rglob("mlflow.db"))  # nothing asked for a registry
        # what it writes lies where it was started, and not with the code
        assert (folder / "lotse-data" / "live").exists() and not (bento / "src" / "lotse-data").exists()
    finally:
        running.stop()


def test_a_bento_without_a_champion_is_not_built(trained: Path, tmp_path: Path) -> None:
    refused = lotse(trained, "build", "--models", str(tmp_path / "out"), "--set", "models.prefix=nobody")
    assert refused.returncode == 2 and "run lotse train" in refused.stderr
