"""configs/serving.toml as typed, frozen settings, and how they reach the worker processes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, field_validator

from features.events import CONSENTS
from features.settings import Settings, load_settings
from features.shop import ShopSettings, load_shop

# BentoML starts workers as processes of their own: they find the configuration here.
ENVIRONMENT: Final = "LOTSE_SERVING"


class ServerSettings(Settings):
    """The HTTP side."""

    host: str = "127.0.0.1"
    port: int = Field(3000, ge=1, le=65535)
    workers: int = Field(1, ge=1)
    body_limit_bytes: int = Field(1_000_000, ge=1_000)
    batch_limit: int = Field(1_000, ge=1)
    noop: bool = False


class SessionSettings(Settings):
    """When sessions end and which times are believed."""

    timeout_minutes: float = Field(30, ge=1, le=24 * 60)
    max_age_hours: float = Field(24, gt=0)
    consent: tuple[str, ...] = ("measure",)

    @field_validator("consent")
    @classmethod
    def _known(cls, consent: tuple[str, ...]) -> tuple[str, ...]:
        for name in consent:
            if name not in CONSENTS:
                raise ValueError(f"unknown consent {name!r}; known: {', '.join(CONSENTS)}")
        return consent


class StoreSettings(Settings):
    """Where live state is kept, and for how long."""

    url: str = "embedded:lotse-data/live"
    size_gib: float = Field(16, gt=0)
    durability: Literal["process", "disk"] = "process"
    timeout_seconds: float = Field(0.25, gt=0)
    prefix: str = Field("lotse", pattern=r"^[a-z0-9_-]+$")
    remembered: int = Field(20_000, ge=0)
    sweep_seconds: float = Field(1, gt=0)
    closed: str = "lotse-data/closed"
    closed_seconds: float = Field(30, gt=0)
    linked_days: float = Field(390, gt=0)


class ModelSettings(Settings):
    """Which registered models score, and how closely they are followed."""

    uri: str = "sqlite:///lotse-data/mlflow.db"
    prefix: str = "lotse"
    alias: str = "champion"
    challenger: str = "challenger"
    heads: tuple[str, ...] = ("bounce", "conversion", "exit")
    poll_seconds: float = Field(10, gt=0)
    wait_seconds: float = Field(5, ge=0)
    cache: str = "lotse-data/models"
    kept: int = Field(2, ge=1)
    shadow_share: float = Field(0.1, ge=0, le=1)
    canary_share: float = Field(0, ge=0, le=1)


class KeySettings(Settings):
    """Where the secret keys are."""

    folder: str = "lotse-data"


class ServingSettings(Settings):
    """The whole of configs/serving.toml."""

    server: ServerSettings = ServerSettings()
    session: SessionSettings = SessionSettings()
    store: StoreSettings = StoreSettings()
    models: ModelSettings = ModelSettings()
    prior: dict[str, float] = Field(default_factory=lambda: {"bounce": 0.4, "conversion": 0.03, "exit": 0.2})
    keys: KeySettings = KeySettings()

    @field_validator("prior")
    @classmethod
    def _probability(cls, prior: dict[str, float]) -> dict[str, float]:
        for head, value in prior.items():
            if not 0 < value < 1:
                raise ValueError(f"prior.{head} is {value}; expected a probability between 0 and 1")
        return prior


def load_serving(config: Path | str = "configs/serving.toml", overrides: Sequence[str] = ()) -> ServingSettings:
    """Read the serving configuration with `a.b=c` overrides."""
    return load_settings(config, ServingSettings, overrides)


def to_environment(config: Path, shop: Path, overrides: Sequence[str]) -> dict[str, str]:
    """What a worker's environment must hold so that it reads the same configuration."""
    return {ENVIRONMENT: json.dumps({"config": str(config), "shop": str(shop), "overrides": list(overrides)})}


def from_environment() -> tuple[ServingSettings, ShopSettings]:
    """The configuration this process was started with; the files in configs/ if it was started by hand."""
    named = json.loads(os.environ.get(ENVIRONMENT, "{}"))
    settings = load_serving(named.get("config", "configs/serving.toml"), named.get("overrides", ()))
    return settings, load_shop(named.get("shop", "configs/shop.toml"))
