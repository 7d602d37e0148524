"""`{% load lotse %}`: flags and scores in templates, and the browser client's tag."""

from __future__ import annotations

from typing import Any, Final

from django import template
from django.apps import apps
from django.template.context import Context
from django.templatetags.static import static
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from lotse_django.consent import NOTHING
from lotse_django.lotse import Lotse

register: Final = template.Library()


@register.simple_tag(takes_context=True)
def lotse_flag(context: Context, key: str, default: Any = None) -> Any:
    """A flag's value: `{% lotse_flag "help_offer" default="none" %}`, or `... as offer %}`."""
    lotse = _of(context)
    return lotse.flag(key, default) if lotse else default


@register.simple_tag(takes_context=True)
def lotse_score(context: Context, head: str, default: Any = None) -> Any:
    """A score: `{% lotse_score "conversion" default=0 as conversion %}`."""
    lotse = _of(context)
    return lotse.score(head, default) if lotse else default


@register.simple_tag(takes_context=True)
def lotse_script(context: Context, nonce: str = "", thresholds: str = "") -> SafeString:
    """The browser client's tag, with the public key and the visitor's consent; nothing where `SCRIPT` is not set.

    A page that the server has told of is not told of again. nonce: for a Content Security Policy; thresholds: scores to
    be told of when they cross.
    """
    client = getattr(apps.get_app_config("lotse_django"), "client", None)
    if client is None or not client.settings.script:
        return SafeString()
    settings, lotse = client.settings, _of(context)
    consent = lotse.consent if lotse else NOTHING
    attributes = {
        "src": settings.script if "//" in settings.script or settings.script[0] == "/" else static(settings.script),
        "data-collector": settings.collector or settings.url,
        "data-key": settings.public_key,
        "data-consent": "full" if "link" in consent else "functional" if "measure" in consent else "none",
        "data-auto": "false" if lotse and lotse.has_told_page else "",
        "data-thresholds": thresholds,
        "nonce": nonce,
    }
    shown = format_html_join("", ' {}="{}"', ((name, value) for name, value in attributes.items() if value))
    return format_html("<script{} defer></script>", shown)


def _of(context: Context) -> Lotse | None:
    return getattr(context.get("request"), "lotse", None)
