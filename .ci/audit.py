"""Known vulnerabilities of the locked packages: fails where a fixed version exists. `make audit`

Asks OSV, then the package index. Where neither can be asked it says so and fails nothing: what it could not see is not
found to be good, either.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

# Advisories that do not concern this project: id -> why not.
IGNORED: Mapping[str, str] = {}
SERVICES = ("osv", "pypi")
LIMIT_SECONDS = 55


def ask(service: str, lock: str) -> dict[str, Any] | None:
    """pip-audit's report, None if the service cannot be asked."""
    command = [sys.executable, "-m", "pip_audit", "-r", lock, "--disable-pip", "-s", service, "-f", "json"]
    try:
        done = subprocess.run(
            [*command, "--progress-spinner", "off", "--timeout", "5"],
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        report: dict[str, Any] = json.loads(done.stdout)
    except (json.JSONDecodeError, subprocess.TimeoutExpired):
        return None
    return report if any("vulns" in each for each in report["dependencies"]) else None


def judge(report: Mapping[str, Any], ignored: Mapping[str, str]) -> tuple[list[str], int, int]:
    """What has to be mended, and how many packages were looked at and how many could not be."""
    found, looked_at, unseen = [], 0, 0
    for package in report["dependencies"]:
        if "skip_reason" in package:
            unseen += 1
            continue
        looked_at += 1
        for one in package["vulns"]:
            names = {one["id"], *one.get("aliases", ())}
            if one["fix_versions"] and not names & ignored.keys():
                fixed = ", ".join(one["fix_versions"])
                found.append(f"{package['name']} {package['version']}: {one['id']}, fixed in {fixed}")
    return found, looked_at, unseen


def main() -> int:
    """Ask, judge, tell."""
    report = next((found for service in SERVICES if (found := ask(service, "requirements.lock"))), None)
    if report is None:
        print(f"audit: no advisories could be had ({', '.join(SERVICES)}): NOTHING WAS AUDITED")
        return 0
    found, looked_at, unseen = judge(report, IGNORED)
    print("\n".join(found))
    print(f"audit: {looked_at} packages looked at, {unseen} could not be; {len(found)} to be mended")
    if found:
        print("raise them with: make lock; or name the advisory and a reason in IGNORED of .ci/audit.py")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
