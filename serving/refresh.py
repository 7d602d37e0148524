"""POST /v1/models/refresh: MLflow's webhooks tell that an alias has moved, and the registry is asked at once.

MLflow signs `<delivery id>.<timestamp>.<body>` with the secret that the webhook was made with (HMAC-SHA256, as in
Standard Webhooks). What the body says is not believed but looked up, so all that a stolen signature can do is to have
the registry asked.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time
from collections.abc import Iterable
from typing import Final

from serving.model_cache import ModelCache
from serving.problems import Problem

SECRET: Final = "LOTSE_WEBHOOK_SECRET"
_TOLERANCE_SECONDS: Final = 300


def refresh(cache: ModelCache, headers: Iterable[tuple[bytes, bytes]], body: bytes, now: float | None = None) -> bytes:
    """Have the registry asked, for all workers; returns the answer. headers: names in lower case.

    Raises
    ------
    Problem
        401: no secret is set, or the signature is not made with it, or too old.
    """
    secret = os.environ.get(SECRET, "")
    if not secret:
        raise Problem(401, f"webhooks are not accepted here; set {SECRET} to the secret of the webhook")
    given = dict(headers)
    delivery, timestamp = given.get(b"x-mlflow-delivery-id", b""), given.get(b"x-mlflow-timestamp", b"")
    signed = hmac.new(secret.encode(), b".".join((delivery, timestamp, body)), hashlib.sha256).digest()
    expected = b"v1," + base64.b64encode(signed)
    if not hmac.compare_digest(given.get(b"x-mlflow-signature", b""), expected):
        raise Problem(401, f"x-mlflow-signature is not that of this body, made with {SECRET}")
    seconds = time.time() if now is None else now
    if not timestamp.isdigit() or abs(seconds - int(timestamp)) > _TOLERANCE_SECONDS:
        raise Problem(401, f"x-mlflow-timestamp is not within {_TOLERANCE_SECONDS} s of now: send it again")
    cache.ask()
    return b'{"status":"asked"}'
