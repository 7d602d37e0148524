"""What `[outbound]` of configs/serving.toml may hold; options of one kind of target are beside the target."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from features.settings import Settings, SettingsError
from serving.outbound import TYPES

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_HOW: Final = 'name where it lies, "env:<variable>" or "file:<path>"; a secret does not belong into the file itself'


class SegmentSettings(Settings):
    """Sessions whose score of a head is high: they enter at threshold, and leave below threshold * (1 - hysteresis).

    least: features that must have come to so much before a session enters, by name.
    """

    head: str
    threshold: float = Field(gt=0, le=1)
    hysteresis: float = Field(0.05, ge=0, lt=1)
    least: dict[str, float] = Field(default_factory=dict)


class OutboundSettings(Settings):
    """Which segments there are, and who is told of them and of what experiments assign."""

    sessions: int = Field(100_000, ge=1)
    queue: int = Field(10_000, ge=1)
    connections: int = Field(4, ge=1)
    timeout_seconds: float = Field(10, gt=0)
    deadline_seconds: float = Field(300, gt=0)
    folder: str = "lotse-data/outbound"
    dead_mib: float = Field(16, gt=0)
    # a pseudonym of a day leads to nobody any more after as long
    dead_hours: float = Field(48, gt=0, le=48)
    segments: dict[str, SegmentSettings] = Field(default_factory=dict)
    targets: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("segments", "targets")
    @classmethod
    def _named(cls, tables: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in tables:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name; expected up to 32 of a-z, 0-9 and _, such as about_to_leave")
        return tables


class TargetOptions(Settings):
    """What every target may be told. types: of messages; segments: whose crossings, all if empty."""

    types: tuple[str, ...] = TYPES
    segments: tuple[str, ...] = ()

    @field_validator("types")
    @classmethod
    def _known(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        for name in types:
            if name not in TYPES:
                raise ValueError(f"unknown type {name!r}; known: {', '.join(TYPES)}")
        return types

    def wants(self, type_: str, segment: str | None) -> bool:
        """Whether a message of a type, about a segment if it is about one, is to be told."""
        return type_ in self.types and (segment is None or not self.segments or segment in self.segments)


def address(section: str, url: str) -> str:
    """An address to send to.

    Raises
    ------
    SettingsError
        It is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.fragment:
        raise SettingsError(f"{section}: found {url!r}; expected an address such as https://crm.example/lotse")
    return url


def place_of(url: str) -> str:
    """Scheme and host of an address, without what may be a secret.

    >>> place_of("https://hooks.crm.example:8443/in/T0P53CR37?key=1")
    'https://hooks.crm.example:8443'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def secret(section: str, where: str) -> str:
    """What lies in an environment variable or a file, without space around it.

    Raises
    ------
    SettingsError
        Nothing does.
    """
    scheme, _, name = where.partition(":")
    if scheme == "env" and name:
        found = os.environ.get(name, "").strip()
        if not found:
            raise SettingsError(f"{section}: the environment has no {name}")
        return found
    if scheme == "file" and name:
        try:
            found = Path(name).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{section}: {name} cannot be read: {type(error).__name__}") from None
        if not found:
            raise SettingsError(f"{section}: {name} is empty")
        return found
    raise SettingsError(f"{section}: {_HOW}")
