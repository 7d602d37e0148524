"""Lotse in a Django shop: scores and flags of the running session in `request.lotse`, and no page that waits for them.

INSTALLED_APPS = [..., "lotse_django"]
MIDDLEWARE = [..., "lotse_django.middleware.LotseMiddleware"]
LOTSE = {"URL": "http://127.0.0.1:3000", "KEY": os.environ["LOTSE_KEY"], "FLAGS": {"help_offer": "none"}}
"""

from __future__ import annotations

from lotse_django.lotse import Lotse
from lotse_django.pages import no_page_view, page_view

__all__ = ["Lotse", "no_page_view", "page_view"]
