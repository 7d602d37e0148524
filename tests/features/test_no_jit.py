"""Without the compiler: everything about the fold also holds as plain Python, which is how a body is debugged."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from features.definitions import CATALOGUE
from tests.workspace import ROOT, environment

# What is about the fold itself, and the examples in the docstrings of what it is made of. Left out: the sources, which
# fold nothing; test_messy, test_stream and test_build_cli, whose real logs of thousands of events take minutes here.
FILES = (
    "tests/features/test_declare.py",
    "tests/features/test_aggregations.py",
    "tests/features/test_fold.py",
    "tests/features/test_conformance.py",
    "features/declare.py",
    "features/memory.py",
    "features/tables.py",
)
# Where nothing is compiled, nothing cannot be.
LEFT_OUT = "not numba_cannot_compile"
PROGRAM = """
import inspect, sys
import numba, pytest
from features.compiler import compile_fold
from features.tables import look_up

assert numba.config.DISABLE_JIT
fold = compile_fold()
assert all(map(inspect.isfunction, (fold.advance, fold.read, fold.module.run, look_up)))
sys.exit(pytest.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_the_fold_as_plain_python() -> None:
    arguments = ["-p", "no:cacheprovider", "--hypothesis-profile", "small", "-k", LEFT_OUT, *FILES]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=ROOT,
        env=environment() | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (summary,) = re.findall(r"^\d+ passed.*$", done.stdout, flags=re.MULTILINE)
    assert re.fullmatch(r"\d+ passed, 2 deselected in .*", summary)
    assert int(summary.split()[0]) > len(CATALOGUE.features) + 40
