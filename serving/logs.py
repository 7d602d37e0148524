"""Logs: a line of JSON each, for machines, or plain text, for people; sampled requests without anything of a visitor.

A request's line holds route, status and time. No address, no id, no path as it came (it may hold a token), no value.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Final

from pythonjsonlogger.json import JsonFormatter

from serving.limits import Limit

if TYPE_CHECKING:
    from serving.settings import LogSettings

logger = logging.getLogger("lotse.requests")

_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_FIELDS: Final = "%(asctime)s %(levelname)s %(name)s %(message)s %(process)d"


def configure(settings: LogSettings) -> None:
    """Send every log of this process to stderr, one line each; for people where that is a terminal."""
    handler = logging.StreamHandler(sys.stderr)
    text = settings.format == "text" or (settings.format == "auto" and sys.stderr.isatty())
    if text:
        handler.setFormatter(logging.Formatter(_TEXT))
    else:
        names = {"asctime": "time", "levelname": "level", "name": "logger", "process": "worker"}
        handler.setFormatter(JsonFormatter(_FIELDS, rename_fields=names))
    handler.addFilter(_Flood(settings.errors_per_second))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    for name in ("bentoml", "uvicorn", "uvicorn.error"):  # one handler for all: what they set up goes
        other = logging.getLogger(name)
        other.handlers, other.propagate = [], True
    for name in ("uvicorn.access", "bentoml.access"):  # hold addresses and paths
        other = logging.getLogger(name)
        other.handlers, other.propagate = [], False


class RequestLog:
    """One line for every so many requests, and for each that failed through us; too many of these are left out."""

    def __init__(self, sample: float) -> None:
        self._every = round(1 / sample) if sample else 0
        self._until = self._every

    def note(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._until -= 1
        if status >= 500:
            self._write(logging.ERROR, route, method, status, seconds)
        elif not self._until:
            self._until = self._every
            self._write(logging.INFO, route, method, status, seconds)

    def _write(self, level: int, route: str, method: str, status: int, seconds: float) -> None:
        fields = {"route": route, "method": method[:16], "status": status, "seconds": round(seconds, 6)}
        logger.log(level, "%s %s %d", method[:16], route, status, extra=fields | {"one_of": self._every})


class _Flood(logging.Filter):
    """Lets through so many warnings and errors a second of each kind."""

    def __init__(self, per_second: float) -> None:
        super().__init__()
        self._limit = Limit(per_second, 5 * per_second, names=1_000)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written; a kind is what the code says, whatever the values in it."""
        return record.levelno < logging.WARNING or not self._limit.take((record.name, record.msg), time.monotonic())
