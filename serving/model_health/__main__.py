"""The models' health as a process: a line of JSON on stdin asks, one on stdout answers.

A service starts one when it is asked, and lets it go when nobody asks any more: MLflow takes 200 MB and seconds to
import, and scores are not to wait for it. It ends when the service does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import redirect_stdout, suppress
from typing import Any

from serving.model_health.asked import Asked
from serving.model_health.document import document
from serving.model_health.store import Store, opened
from serving.registry import RegistryError

# Behind everything that answers requests.
_NICENESS = 10


def answer(asked: Asked, store: Store | None, now_ms: int) -> dict[str, Any]:
    """The document, or as `problem` why there is none."""
    try:
        return document(asked, store, now_ms)
    except RegistryError as error:
        return {"problem": f"the model registry does not answer ({error}); try again"}


def main() -> None:
    """Answer until nobody is there to ask."""
    with suppress(OSError):
        os.nice(_NICENESS)
    stores: dict[str, Store | None] = {}
    for line in sys.stdin:
        asked = Asked(**json.loads(line))
        # what MLflow has to say must not stand among the answers
        with redirect_stdout(sys.stderr):
            try:
                if stores.get(asked.uri) is None:
                    stores[asked.uri] = opened(asked.uri)
                found = answer(asked, stores[asked.uri], time.time_ns() // 1_000_000)
            except RegistryError as error:
                found = {"problem": f"the model registry does not answer ({error}); try again"}
        print(json.dumps(found, allow_nan=False), flush=True)


if __name__ == "__main__":
    main()
