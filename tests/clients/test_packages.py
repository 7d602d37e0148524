"""What is published: the packages as npm and uv build them from this checkout."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.browser.client_build import run
from tests.clients.express_build import built
from tests.workspace import ROOT


def test_the_npm_package_has_what_it_exports() -> None:
    (packed,) = json.loads(run("npm", "pack", "--dry-run", "--json", "--loglevel=error", folder=built()))
    files = {file["path"] for file in packed["files"]}
    about = json.loads((built() / "package.json").read_text())
    for entry in about["exports"].values():
        assert {path.removeprefix("./") for path in entry.values()} <= files
    assert {"README.md", "package.json"} <= files and not any("test" in file for file in files)


def test_the_wheel_has_every_module_and_says_that_it_is_typed(tmp_path: Path) -> None:
    folder = ROOT / "clients" / "python"
    uv = str(Path(sys.executable).parent / "uv")
    # from a copy: setuptools writes beside the sources
    shutil.copytree(folder, tmp_path / "python")
    subprocess.run(
        [uv, "build", "--quiet", "--wheel", "--out-dir", "out", "python"], cwd=tmp_path, check=True, timeout=120
    )
    (wheel,) = (tmp_path / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    modules = {f"lotse_client/{file.name}" for file in (folder / "src" / "lotse_client").iterdir() if file.is_file()}
    assert "lotse_client/py.typed" in modules and modules <= names
