"""Webhooks, signed as [Standard Webhooks](https://www.standardwebhooks.com) has it: a request a message.

They carry a session's token, which its own page and server know, and no id of a tracker.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from features.settings import SettingsError, options_of
from serving.outbound import Message, Parcel
from serving.outbound.configuration import TargetOptions, address, place_of, secret

_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = range(24, 65)


class WebhookOptions(TargetOptions):
    """Options of a webhook. secret: where it lies; several, with space between, while one is replaced."""

    url: str
    secret: str


class Webhook:
    """One webhook."""

    tracker = ""
    together = 1
    told = "session token, segment, scores and versions of models; experiment and arm"

    def __init__(self, section: str, options: Mapping[str, Any]) -> None:
        self._options = options_of(section, options, WebhookOptions)
        self._url = address(f"{section}.url", self._options.url)
        self.where = place_of(self._url)
        self._secret_at, self._keys = f"{section}.secret", list[bytes]()

    def open(self) -> None:
        """Read the secrets."""
        self._keys = [_key(self._secret_at, one) for one in secret(self._secret_at, self._options.secret).split()]

    def wants(self, message: Message) -> bool:
        """Whether its type and segment are configured."""
        return self._options.wants(message.type, message.data.get("segment"))

    def parcel(self, messages: Sequence[Message], now_ms: int) -> Parcel:
        """The request, signed now: receivers refuse old signatures."""
        (message,) = messages
        at = datetime.fromtimestamp(message.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
        data = {"session": message.session, **message.data}
        body = msgspec.json.encode({"type": message.type, "timestamp": at.replace("+00:00", "Z"), "data": data})
        seconds = now_ms // 1000
        signed = b"%b.%d.%b" % (message.id.encode(), seconds, body)
        signatures = [b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in self._keys]
        headers = {
            "content-type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": str(seconds),
            "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
        }
        return Parcel(self._url, headers, body)


def _key(section: str, text: str) -> bytes:
    """The key of a secret.

    Raises
    ------
    SettingsError
        It is none of Standard Webhooks; nothing of it is repeated.
    """
    try:
        key = b64decode(text.removeprefix(_PREFIX), validate=True) if text.startswith(_PREFIX) else b""
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in _SECRET_BYTES:
        raise SettingsError(
            f"{section}: what lies there is no secret of Standard Webhooks: {_PREFIX} and 24 to 64 bytes in base64; "
            "make one with: echo whsec_$(openssl rand -base64 32)"
        )
    return key
