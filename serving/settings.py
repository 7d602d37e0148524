"""configs/serving.toml as typed, frozen settings, and how they reach the worker processes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from features.events import CONSENTS
from features.settings import Settings, load_settings
from features.shop import ShopSettings, load_shop
from serving.outbound.configuration import OutboundSettings

# BentoML starts workers as processes of their own: they find the configuration here.
ENVIRONMENT: Final = "LOTSE_SERVING"
# The folder in which the service was started.
FOLDER: Final = "LOTSE_FOLDER"
# Where `lotse build` puts what belongs to the code.
_PACKED: Final = Path(__file__).parents[1]


class ServerSettings(Settings):
    """The HTTP side."""

    host: str = "127.0.0.1"
    port: int = Field(3000, ge=1, le=65535)
    workers: int = Field(1, ge=1)
    body_limit_bytes: int = Field(1_000_000, ge=1_000)
    batch_limit: int = Field(1_000, ge=1)
    run: str = "lotse-data/run"
    keep_alive_seconds: int = Field(60, ge=1)
    drain_seconds: float = Field(0, ge=0)
    stop_seconds: int = Field(20, ge=1)
    bulk_body_limit_bytes: int = Field(1_000_000_000, ge=1_000)
    bulk_rows: int = Field(1_000_000, ge=1)
    bulk_at_once: int = Field(1, ge=1)
    explain_limit: int = Field(20, ge=0)
    explain_features: int = Field(8, ge=1)
    idempotency_hours: float = Field(24, gt=0)
    noop: bool = False


class CorsSettings(Settings):
    """Pages of which origins may read our answers."""

    origins: tuple[str, ...] = ()
    credentials: bool = False
    max_age_seconds: int = Field(7_200, ge=0)

    @field_validator("origins")
    @classmethod
    def _origin(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s?#]+", origin):
                raise ValueError(f"cors.origins holds {origin!r}; expected https://shop.example, without a path, or *")
        return origins

    @model_validator(mode="after")
    def _not_everybody(self) -> Self:
        if self.credentials and "*" in self.origins:
            raise ValueError("cors.credentials with every origin gives cookies to every page; list the origins")
        return self


class StreamSettings(Settings):
    """Events that the service sends to those who listen to a session."""

    limit: int = Field(1_000, ge=0)
    poll_seconds: float = Field(1, gt=0)
    heartbeat_seconds: float = Field(15, gt=0)
    retry_seconds: float = Field(3, ge=0)
    hysteresis: float = Field(0.05, ge=0, lt=1)


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
    memory_folder: str = ""
    timeout_seconds: float = Field(0.25, gt=0)
    deadline_seconds: float = Field(0.5, gt=0)
    failures: int = Field(3, ge=1)
    retry_seconds: float = Field(1, gt=0)
    spool: str = "lotse-data/spool"
    spool_mib: float = Field(256, gt=0)
    prefix: str = Field("lotse", pattern=r"^[a-z0-9_-]+$")
    remembered: int = Field(20_000, ge=0)
    sweep_seconds: float = Field(1, gt=0)
    closed: str = "lotse-data/closed"
    closed_seconds: float = Field(30, gt=0)
    closed_days: float = Field(390, gt=0)
    # 13 months at most
    linked_days: float = Field(390, gt=0, le=396)


class RowSettings(Settings):
    """Which rows of sessions are kept to train from."""

    rows: int = Field(1, ge=0, le=1)
    idle_seconds: tuple[float, ...] = (5, 10, 30, 60, 300)

    @property
    def silences_ms(self) -> tuple[int, ...]:
        """The checkpoints of silence, ms."""
        return tuple(round(seconds * 1000) for seconds in self.idle_seconds)


class ModelSettings(Settings):
    """Which registered models score, and how closely they are followed."""

    uri: str = "sqlite:///lotse-data/mlflow.db"
    prefix: str = "lotse"
    alias: str = "champion"
    challenger: str = "challenger"
    heads: tuple[str, ...] = ("bounce", "conversion", "exit")
    poll_seconds: float = Field(10, gt=0)
    cache: str = "lotse-data/models"
    kept: int = Field(2, ge=1)
    shadow_share: float = Field(0.1, ge=0, le=1)
    canary_share: float = Field(0, ge=0, le=1)


class ExperimentSettings(Settings):
    """Where flags and experiments are defined, the versions that were pushed, and how experiments learn."""

    file: str = "configs/experiments.json"
    history: str = "lotse-data/versions"
    versions: int = Field(100, ge=1)
    learned: str = "lotse-data/experiments"
    learn_seconds: float = Field(60, gt=0)
    table_minutes: float = Field(60, gt=0)


class TlsSettings(Settings):
    """Encrypted connections."""

    certificate: str = ""
    key: str = ""
    client_ca: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("tls.certificate and tls.key belong together; give both or none")
        if self.client_ca and not self.certificate:
            raise ValueError("tls.client_ca needs tls.certificate and tls.key")
        return self


class KeySettings(Settings):
    """Where the keys are, and whether a request needs one."""

    folder: str = "lotse-data"
    required: bool | Literal["auto"] = "auto"


class LimitSettings(Settings):
    """How much may come, from whom, and how slowly."""

    key_events_per_second: float = Field(0, ge=0)
    address_events_per_second: float = Field(200, ge=0)
    burst_seconds: float = Field(5, gt=0)
    trusted_proxies: tuple[str, ...] = ()
    connections: int = Field(10_000, ge=1)
    header_seconds: float = Field(10, gt=0)
    body_seconds: float = Field(10, gt=0)
    body_bytes_per_second: float = Field(50_000, gt=0)
    read_seconds: float = Field(30, gt=0)

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            try:
                ip_network(proxy)
            except ValueError as error:
                raise ValueError(f"{error}; expected addresses or networks such as 10.0.0.0/8") from None
        return proxies


class LogSettings(Settings):
    """What is told on stderr."""

    format: Literal["auto", "json", "text"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    sample: float = Field(0.001, ge=0, le=1)
    errors_per_second: float = Field(10, gt=0)


class TelemetrySettings(Settings):
    """OpenTelemetry's spans."""

    enabled: bool = False
    endpoint: str = "http://127.0.0.1:4318/v1/traces"
    service: str = "lotse"
    sample: float = Field(0.01, ge=0, le=1)


class CollectSettings(Settings):
    """Which trackers' requests are understood; a table of options for each."""

    trackers: tuple[str, ...] = ("matomo", "plausible", "segment", "snowplow", "tealium", "adobe", "ga4")
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    forward: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _originals(self) -> Self:
        for name, original in self.forward.items():
            if name not in self.trackers:
                raise ValueError(f"collect.forward.{name}: collect.trackers has no {name!r}; add it there")
            url = urlsplit(original)
            whole = url.scheme in ("http", "https") and url.hostname and "@" not in url.netloc
            if not whole or url.query or url.fragment:
                raise ValueError(f"collect.forward.{name} is {original!r}; expected https://collector.shop.example")
        return self


class ForwardSettings(Settings):
    """How trackers' requests are passed on to their original collectors."""

    objected: bool = False
    cookies: tuple[str, ...] = (
        "_pk_*", "mtm_*", "matomo_*", "piwik_*", "sp", "_sp_*", "kndctr_*", "AMCV_*", "utag_main*", "TAPID", "_ga*",
        "ajs_*",
    )  # fmt: skip
    connections: int = Field(32, ge=1)
    queue_mib: float = Field(32, gt=0)
    timeout_seconds: float = Field(5, gt=0)
    deadline_seconds: float = Field(60, gt=0)


class PrivacySettings(Settings):
    """Which of a browser's own signals count, and who answers for what is processed."""

    gpc: bool = True
    dnt: bool = True
    controller: str = ""


class InsightSettings(Settings):
    """What is told of many sessions together."""

    least_visitors: int = Field(50, ge=1)
    cache_seconds: float = Field(60, ge=0)
    timeout_seconds: float = Field(60, gt=0)


class ConsoleSettings(Settings):
    """The console: whether there is one, and how much of what runs it shows."""

    enabled: bool = True
    seconds: float = Field(1, ge=0.2)
    sessions: int = Field(20_000, ge=1)
    rows: int = Field(100, ge=1, le=1_000)
    listeners: int = Field(8, ge=0)


class DecisionSettings(Settings):
    """The log of decisions."""

    sample: float = Field(0, ge=0, le=1)
    folder: str = "lotse-data/decisions"
    file_mib: float = Field(64, gt=0)
    kept_days: float = Field(30, gt=0)


class ServingSettings(Settings):
    """The whole of configs/serving.toml."""

    server: ServerSettings = ServerSettings()
    cors: CorsSettings = CorsSettings()
    stream: StreamSettings = StreamSettings()
    session: SessionSettings = SessionSettings()
    store: StoreSettings = StoreSettings()
    log: RowSettings = RowSettings()
    models: ModelSettings = ModelSettings()
    prior: dict[str, float] = Field(default_factory=lambda: {"bounce": 0.4, "conversion": 0.03, "exit": 0.2})
    keys: KeySettings = KeySettings()
    limits: LimitSettings = LimitSettings()
    tls: TlsSettings = TlsSettings()
    logs: LogSettings = LogSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    collect: CollectSettings = CollectSettings()
    forward: ForwardSettings = ForwardSettings()
    privacy: PrivacySettings = PrivacySettings()
    decisions: DecisionSettings = DecisionSettings()
    insight: InsightSettings = InsightSettings()
    console: ConsoleSettings = ConsoleSettings()
    experiments: ExperimentSettings = ExperimentSettings()
    outbound: OutboundSettings = OutboundSettings()

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


def go_where_it_was_started() -> None:
    """Make the folder in which the service was started the current one: there it reads and writes.

    BentoML's workers of a Bento begin in the Bento's own folder, which may be read-only.
    """
    if FOLDER in os.environ:
        os.chdir(os.environ[FOLDER])


def from_environment() -> tuple[ServingSettings, ShopSettings]:
    """The configuration this process was started with; the files in configs/ if it was started by hand."""
    go_where_it_was_started()
    named = json.loads(os.environ.get(ENVIRONMENT, "{}"))
    # a Bento holds a configuration and models; files where it is started come first
    here = Path.cwd() if Path("configs/serving.toml").exists() else _PACKED
    settings = load_serving(named.get("config", here / "configs/serving.toml"), named.get("overrides", ()))
    if here == _PACKED and (_PACKED / "models").exists():
        models = settings.models.model_copy(update={"uri": "", "cache": str(_PACKED / "models")})
        settings = settings.model_copy(update={"models": models})
    return settings, load_shop(named.get("shop", here / "configs/shop.toml"))
