"""The packages' borders, read from the imports: features <- training, features <- serving, and nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"features", "training", "serving", "simulation", "tests", "benchmarks"}
ALLOWED = {
    "features": {"features"},
    "training": {"training", "features"},
    "serving": {"serving", "features"},
    "simulation": {"simulation", "features"},
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").partition(".")[0])
    return names & OURS


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_stay_inside_the_borders(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert imported(path) <= ALLOWED[package], path


def test_trackers_need_no_tables() -> None:
    """A service starts a second sooner without pandas."""
    modules = ", ".join(sorted({point.module for point in entry_points(group="lotse.trackers")}))
    script = f"import sys, {modules}; print('pandas' in sys.modules, 'pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False", "False"]
