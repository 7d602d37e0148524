"""What is particular to one shop, read from configs/shop.toml: event names, log columns, money and clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from features.events import CHANNELS, COLUMNS, CONSENTS, DEVICES, EVENT_NAMES
from features.settings import Settings, load_settings

# What a log's columns can be mapped to: the columns of the event, and text that some of them are made from.
MAPPABLE = (*COLUMNS, "currency", "url", "referrer", "user_agent")


class SourceSettings(Settings):
    """One log: which reader, which column is what, which of its names is which of ours."""

    reader: str = ""
    path: str = ""
    columns: dict[str, str] = Field(default_factory=dict)
    time_unit: Literal["s", "ms", "us", "ns", "iso"] = "ms"
    timezone: str | None = None
    events: dict[str, str] = Field(default_factory=dict)
    channels: dict[str, str] = Field(default_factory=dict)
    devices: dict[str, str] = Field(default_factory=dict)
    unknown_events: Literal["error", "custom"] | None = None
    bad_rows: Literal["error", "skip"] = "error"
    repeated_rows: Literal["keep", "drop"] = "keep"
    consent: tuple[str, ...] = ("measure",)
    start: str | None = None
    end: str | None = None
    separator: str = ","
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        for name in columns:
            if name not in MAPPABLE:
                raise ValueError(f"unknown event column {name!r}; known: {', '.join(MAPPABLE)}")
        return columns

    @field_validator("events")
    @classmethod
    def _known_events(cls, events: dict[str, str]) -> dict[str, str]:
        return _check_mapping(events, EVENT_NAMES, "event")

    @field_validator("channels")
    @classmethod
    def _known_channels(cls, channels: dict[str, str]) -> dict[str, str]:
        return _check_mapping(channels, CHANNELS, "channel")

    @field_validator("devices")
    @classmethod
    def _known_devices(cls, devices: dict[str, str]) -> dict[str, str]:
        return _check_mapping(devices, DEVICES, "device")

    @field_validator("consent")
    @classmethod
    def _known_consent(cls, consent: tuple[str, ...]) -> tuple[str, ...]:
        for name in consent:
            if name not in CONSENTS:
                raise ValueError(f"unknown consent {name!r}; known: {', '.join(CONSENTS)}")
        return consent


class ShopSettings(Settings):
    """The whole of configs/shop.toml."""

    currency: str = "EUR"
    timezone: str = "UTC"
    unknown_events: Literal["error", "custom"] = "error"
    rates: dict[str, float] = Field(default_factory=dict)
    events: dict[str, str] = Field(default_factory=dict)
    sources: dict[str, SourceSettings] = Field(default_factory=dict)

    @field_validator("events")
    @classmethod
    def _known_events(cls, events: dict[str, str]) -> dict[str, str]:
        return _check_mapping(events, EVENT_NAMES, "event")

    def source(self, name: str, defaults: SourceSettings) -> SourceSettings:
        """The section of a source over its format's defaults, key by key; mappings are joined, its entries win."""
        section = self.sources.get(name)
        if section is None:
            return defaults
        changed: dict[str, Any] = {}
        for key in section.model_fields_set:
            value = getattr(section, key)
            changed[key] = {**getattr(defaults, key), **value} if isinstance(value, dict) else value
        return defaults.model_copy(update=changed)

    def rate(self, currency: str) -> float:
        """What one unit of `currency` is worth in the base currency.

        Raises
        ------
        ValueError
            The currency has no rate.
        """
        if not currency or currency == self.currency:
            return 1.0
        try:
            return self.rates[currency]
        except KeyError:
            known = ", ".join([self.currency, *self.rates])
            raise ValueError(
                f"no rate for currency {currency!r}; known: {known}; add it in shop.toml [rates]"
            ) from None


def load_shop(path: Path | str = "configs/shop.toml") -> ShopSettings:
    """Read the shop's configuration."""
    return load_settings(path, ShopSettings)


def _check_mapping(mapping: dict[str, str], known: tuple[str, ...], what: str) -> dict[str, str]:
    for own, ours in mapping.items():
        if ours not in known:
            raise ValueError(f"{what} {own!r} is mapped to unknown {ours!r}; known: {', '.join(known)}")
    return mapping
