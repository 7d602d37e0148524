"""schemathesis against the running service: whatever is sent, no answer is a 5xx or other than the document says.

    python -m benchmarks.fuzz [--cases 100000] [--url http://127.0.0.1:3000]

What trackers send is not in the document, but in captures of their clients (`benchmarks.fuzz_trackers`); visitors'
rights are asked for with tokens of theirs.

Without a URL the service is started here, in a folder of its own, with models of a simulated shop. Rounds with seeds of
their own go on until enough cases were sent.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys

from benchmarks.measure import console
from benchmarks.services import ROOT, lotse, trained_folder

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
_COUNTED = re.compile(r"^\s*([\d,]+) generated", re.MULTILINE)


def fuzz(url: str, examples: int, seed: int, phases: str = "examples,coverage,fuzzing,stateful") -> tuple[int, str]:
    """One round: how many cases were sent, and what was found, nothing if all is well."""
    command = ["-m", "schemathesis.cli", "run", f"{url}/v1/openapi.json", "--checks", CHECKS, "--phases", phases]
    command += ["--max-examples", str(examples), "--seed", str(seed), "--generation-database", "none", "--no-color"]
    command += ["--suppress-health-check", "all", "--continue-on-failure", "--request-timeout", "20"]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "benchmarks.fuzz_hooks", "LOTSE_FUZZED": url},
        capture_output=True,
        text=True,
        check=False,
    )
    counted = _COUNTED.search(done.stdout)
    cases = int(counted[1].replace(",", "")) if counted else 0
    return cases, "" if done.returncode == 0 and cases else done.stdout + done.stderr


def rounds(url: str, cases: int) -> int:
    """Send so many cases; returns how many it were.

    Raises
    ------
    SystemExit
        Something was found.
    """
    sent = seed = 0
    examples = min(max(cases // 50, 10), 150)  # of some fifty operations
    while sent < cases:
        seed += 1
        more, found = fuzz(url, examples, seed)
        sent += more
        console.print(f"  round {seed}: {sent:,} cases", style="dim")
        if found:
            console.print(found, markup=False)
            raise SystemExit(f"after {sent:,} cases something was found, see above")
    return sent


def main() -> None:
    """Start the service, send, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--url", default="")
    options = parser.parse_args()
    if options.url:
        sent = rounds(options.url, options.cases)
    else:
        with trained_folder() as folder, lotse(folder) as running:
            sent = rounds(f"http://127.0.0.1:{running.port}", options.cases)
    console.print(f"{sent:,} cases: no 5xx, and no answer other than the document says")


if __name__ == "__main__":
    main()
