"""Journeys of closed sessions as a process: what is asked as JSON on stdin, the document as JSON on stdout.

A service starts one for each question that it has no answer to yet: counting takes a core for as long as it takes, and
scores are not to wait for it.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import Any

from features.journeys.funnels import Funnel
from features.journeys.report import Asked, journeys, usual
from features.journeys.sessions import of_closed

# Behind everything that answers requests.
_NICENESS = 10


def main() -> None:
    """Read, count, write."""
    with suppress(OSError):
        os.nice(_NICENESS)
    given = json.load(sys.stdin)
    sessions = of_closed(given["folder"], given["since_ms"], given["until_ms"])
    funnels = tuple(Funnel(tuple(one.pop("steps")), **one) for one in given["asked"].pop("funnels"))
    asked: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given["asked"].items()
    }
    json.dump(journeys(sessions, usual(sessions, Asked(funnels=funnels, **asked))), sys.stdout)


if __name__ == "__main__":
    main()
