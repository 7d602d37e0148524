"""The shop's settings; what a test wants otherwise is in the environment."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

_GIVEN = json.loads(os.environ["SHOP"])
for _name in _GIVEN.get("without", ()):
    sys.modules[_name] = None  # as if it were not installed

SECRET_KEY = "the shop's own, of a test"
ALLOWED_HOSTS = ["*"]
DEBUG = False
USE_TZ = True
ROOT_URLCONF = "tests.clients.django_shop.urls"
INSTALLED_APPS = ["django.contrib.sessions", "django.contrib.staticfiles", "lotse_django"]
MIDDLEWARE = [
    "tests.clients.django_shop.watch.WatchMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "lotse_django.middleware.LotseMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).parent / "templates"],
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]
# A proxy before the shop ends TLS.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_CROSS_ORIGIN_OPENER_POLICY = None
SESSION_ENGINE = "django.contrib.sessions.backends.cache"
STATIC_URL = "/static/"
STATICFILES_DIRS = _GIVEN.get("static", [])
# Everything that anybody logs, so that a test can look for what must not be there.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"long": {"format": "%(levelname)s %(name)s %(message)s"}},
    "handlers": {"all": {"class": "logging.StreamHandler", "formatter": "long"}},
    "root": {"level": _GIVEN.get("log", "INFO"), "handlers": ["all"]},
}
LOTSE = _GIVEN.get("LOTSE")
if not _GIVEN.get("middleware", True):
    MIDDLEWARE = MIDDLEWARE[:-1]  # as the shop was before, for a comparison
