"""Journeys of closed sessions as a process: what is asked as a line of JSON on stdin, the document as one on stdout.

A service starts one when it is asked, and lets it go when nobody asks any more: counting takes a core for as long as it
takes, and scores are not to wait for it. It ends when the service does.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from features.journeys.funnels import Funnel
from features.journeys.report import Asked, journeys, usual
from features.journeys.sessions import Sessions, of_closed

# Behind everything that answers requests.
_NICENESS = 10


class Kept:
    """The sessions that were asked for last: whoever looks at journeys asks for the same ones in many ways."""

    def __init__(self) -> None:
        self._of: object = None
        self._sessions = Sessions({})

    def sessions(self, folder: str, since_ms: int, until_ms: int) -> Sessions:
        """Read again where a file has changed."""
        of = (_files(Path(folder)), since_ms, until_ms)
        if of != self._of:
            self._sessions, self._of = of_closed(folder, since_ms, until_ms), of
        return self._sessions


def _files(folder: Path) -> list[tuple[str, int]]:
    """Names and times of the files that are there."""
    found = []
    for file in sorted(folder.glob("day=*/*.parquet")):
        with suppress(FileNotFoundError):  # erased meanwhile
            found.append((str(file), file.stat().st_mtime_ns))
    return found


def answer(given: dict[str, Any], kept: Kept) -> dict[str, Any]:
    """The document that is asked for."""
    sessions = kept.sessions(given["folder"], given["since_ms"], given["until_ms"])
    funnels = tuple(Funnel(tuple(one.pop("steps")), **one) for one in given["asked"].pop("funnels"))
    asked: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given["asked"].items()
    }
    return journeys(sessions, usual(sessions, Asked(funnels=funnels, **asked)))


def main() -> None:
    """Answer until nobody is there to ask."""
    with suppress(OSError):
        os.nice(_NICENESS)
    kept = Kept()
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), kept)), flush=True)


if __name__ == "__main__":
    main()
