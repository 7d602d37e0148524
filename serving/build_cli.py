"""`lotse build`: the service with its models as a Bento, which serves without a registry and without this checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console

from features.settings import SettingsError

if TYPE_CHECKING:
    from serving.settings import ServingSettings

PACKAGES: Final = ("features", "serving")
_ROOT: Final = Path(__file__).parents[1]
_BENTOFILE: Final = """\
service: "serving.service:Lotse"
name: lotse
include: ["features/", "serving/", "configs/", "models/", "*.dist-info/"]
python:
  requirements_txt: requirements.txt
  lock_packages: false
"""


def build(
    config: Annotated[Path, typer.Option(help="Serving configuration.")] = Path("configs/serving.toml"),
    shop: Annotated[Path, typer.Option(help="Shop configuration.")] = Path("configs/shop.toml"),
    models: Annotated[Path | None, typer.Option(help="Only write the models, to this folder; no Bento.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key, e.g. models.alias=candidate.")
    ] = None,
) -> None:
    """Build a Bento: code, configuration and the champions of the registry.

    Serve it anywhere: bentoml serve <tag or folder>
    """
    from features.shop import load_shop  # noqa: PLC0415
    from serving.follow import pack  # noqa: PLC0415  (MLflow takes seconds)
    from serving.settings import load_serving  # noqa: PLC0415

    settings = load_serving(config, set_ or ())
    load_shop(shop)
    if models is not None:
        _pack(settings, models, pack)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for package in PACKAGES:
            shutil.copytree(_ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "configs").mkdir()
        shutil.copy(config, folder / "configs" / "serving.toml")
        shutil.copy(shop, folder / "configs" / "shop.toml")
        _pack(settings, folder / "models", pack)
        ours = distribution("lotse")
        _tell_entry_points(ours, folder)
        (folder / "requirements.txt").write_text("".join(f"{each}\n" for each in requirements(ours)))
        (folder / "bentofile.yaml").write_text(_BENTOFILE)
        environment = {key: value for key, value in os.environ.items() if key != "LOTSE_SERVING"}
        environment |= {"BENTOML_DO_NOT_TRACK": "True", "PYTHONPATH": name}
        command = [sys.executable, "-m", "bentoml", "build", "--output", "tag", name]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SettingsError(f"bentoml build failed: {done.stderr.strip() or done.stdout.strip()}")
    print(done.stdout.strip().removeprefix("__tag__:"))
    Console(stderr=True, highlight=False).print("serve it with: bentoml serve <tag>")


def _pack(settings: ServingSettings, folder: Path, pack: object) -> None:
    told = Console(stderr=True, highlight=False)
    for head, version in pack(settings, folder).items():  # type: ignore[operator]
        told.print(f"{head}: version {version}")


def requirements(ours: Distribution) -> list[str]:
    """What the service needs, at the versions that are installed here; extras are left to who builds the image."""
    from packaging.requirements import Requirement  # noqa: PLC0415

    found = []
    for text in ours.requires or ():
        needed = Requirement(text)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            extras = f"[{','.join(sorted(needed.extras))}]" if needed.extras else ""
            found.append(f"{needed.name}{extras}=={distribution(needed.name).version}")
    return found


def _tell_entry_points(ours: Distribution, folder: Path) -> None:
    """Stores and readers are found by entry points, also where the code lies as plain modules."""
    about = folder / f"lotse-{ours.version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lotse\nVersion: {ours.version}\n")
    (about / "entry_points.txt").write_text(ours.read_text("entry_points.txt") or "")
