"""`manage.py check`: what is wrong with the shop's settings, by name, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  (Django's name)

from lotse_django.settings import Settings, read

_MIDDLEWARE: Final = "lotse_django.middleware.LotseMiddleware"
# The browser client looks for its visitor here.
_BROWSERS_COOKIE: Final = "lotse"


def check_settings(app_configs: Sequence[AppConfig] | None = None, **_: Any) -> list[CheckMessage]:
    """What is wrong at any time."""
    settings, wrong = read(getattr(django_settings, "LOTSE", None))
    found: list[CheckMessage] = [
        Error(f"LOTSE[{each.key!r}] {each.problem}" if each.key else each.problem, hint=each.hint, id="lotse.E001")
        for each in wrong
    ]
    if _MIDDLEWARE not in django_settings.MIDDLEWARE:
        found.append(
            Error(
                "MIDDLEWARE has no Lotse: request.lotse will be missing",
                hint=f'Add "{_MIDDLEWARE}", behind the middleware of sessions and logins.',
                id="lotse.E002",
            )
        )
    if settings:
        found += _doubtful(settings)
    return found


def _doubtful(settings: Settings) -> Iterator[CheckMessage]:
    if settings.script and settings.cookie != _BROWSERS_COOKIE:
        yield Error(
            f"LOTSE['COOKIE'] is {settings.cookie!r}, and the browser client knows {_BROWSERS_COOKIE!r} only: "
            "server and page would take a visitor for two",
            hint="Leave COOKIE away, or SCRIPT.",
            id="lotse.E003",
        )
    if settings.openfeature:
        try:
            import lotse_django.provider  # noqa: F401, PLC0415  (an optional package)
        except ImportError as error:
            yield Error(f"LOTSE['OPENFEATURE']: {error}", hint="pip install lotse-django[openfeature]", id="lotse.E004")
    if (settings.public_key or settings.collector) and not settings.script:
        yield Warning(
            "LOTSE['PUBLIC_KEY'] and ['COLLECTOR'] are for the browser client, and there is none",
            hint='"SCRIPT": "lotse.js", where the static files have the client.',
            id="lotse.W001",
        )


def check_deployment(app_configs: Sequence[AppConfig] | None = None, **_: Any) -> list[CheckMessage]:
    """What is wrong for visitors, but not on a developer's machine (`check --deploy`)."""
    settings, _wrong = read(getattr(django_settings, "LOTSE", None))
    found: list[CheckMessage] = []
    if settings is None:
        return found
    parts = urlsplit(settings.url)
    if settings.key and parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        found.append(
            Warning(
                "LOTSE['URL'] is http: the secret key and what visitors do cross the network in the clear",
                hint="[tls] of the service's configs/serving.toml, or a network that nobody else is on.",
                id="lotse.W002",
            )
        )
    if not settings.key:
        found.append(
            Warning(
                "LOTSE['KEY'] is not set: the service must be open to everybody for that, or to this machine",
                hint="lotse keys create --kind secret --name shop",
                id="lotse.W003",
            )
        )
    return found
