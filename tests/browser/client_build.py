"""The browser client as it is built from this checkout."""

from __future__ import annotations

import json
import os
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.once import alone
from tests.workspace import ROOT

CLIENT = ROOT / "clients" / "browser"


@lru_cache
def built() -> Path:
    """The client's folder; dist/ is what pages load, build/ each module by itself."""
    with alone(ROOT / ".cache" / "client.lock"):
        run("make", "clients/browser/dist/.ready", folder=ROOT)
    return CLIENT


def run(*command: str, folder: Path = CLIENT, text: str = "") -> str:
    """What a command prints, which must end well."""
    # NODE_TEST_CONTEXT would have node's test runner report to a parent that is not there
    environment = {key: value for key, value in os.environ.items() if key not in ("NODE_TEST_CONTEXT", "MAKEFLAGS")}
    done = subprocess.run(
        command, cwd=folder, env=environment, input=text, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def module(expression: str, name: str, cases: list[Any]) -> list[Any]:
    """What an expression over `m` (a module of the client) and `c` (a case) gives for each case, by Node."""
    source = f"""
import {{ readFileSync }} from "node:fs"
import * as m from "{built().as_uri()}/build/{name}.js"
console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map((c) => {expression})))
"""
    answers: list[Any] = json.loads(run("node", "--input-type=module", "-e", source, text=json.dumps(cases)))
    return answers
