"""The application: reads the setting once a process and holds its connection to the service."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core import checks
from django.core.signals import setting_changed

from lotse_django.checks import check_deployment, check_settings
from lotse_django.client import Client
from lotse_django.lotse import Lotse
from lotse_django.settings import read

logger: Final = logging.getLogger("lotse")


class LotseConfig(AppConfig):
    """The application.

    Attributes
    ----------
    client: None where the setting is wrong. Then pages are as without an answer: a shop is not to stand still for it.
    evaluated_for: within it, OpenFeature's API answers for a request's session, if the shop wants that.
    """

    name = "lotse_django"
    verbose_name = "Lotse"
    client: Client | None = None
    evaluated_for: Callable[[Lotse], AbstractContextManager[object]] = nullcontext

    def ready(self) -> None:
        """Read the setting."""
        checks.register(check_settings)
        checks.register(check_deployment, deploy=True)
        setting_changed.connect(self._changed)
        self._read()

    def _read(self) -> None:
        settings, wrong = read(getattr(django_settings, "LOTSE", None))
        self.client = Client(settings) if settings else None
        for each in wrong:
            logger.error("LOTSE%s %s; nothing is sent. See manage.py check", f"[{each.key!r}]", each.problem)
        if self.client and self.client.settings.openfeature:
            try:
                from lotse_django import provider  # noqa: PLC0415  (an optional package)
            except ImportError as error:
                logger.error("LOTSE['OPENFEATURE']: %s", error)
            else:
                provider.provide(self.client)
                self.evaluated_for = provider.evaluated_for

    def _changed(self, *, setting: str, **_: Any) -> None:
        """A test has changed it (`override_settings`)."""
        if setting == "LOTSE":
            if self.client:
                self.client.close()
            self._read()
