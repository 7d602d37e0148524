"""A worker that was killed is replaced soon, and workers end when their supervisor is gone.

Killed, a supervisor cannot end its workers, and they would hold its port for ever.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from functools import partial
from typing import Any, Final

logger = logging.getLogger("lotse.service")

# `lotse serve` says here which process it becomes.
SUPERVISOR: Final = "LOTSE_SUPERVISOR"
_LOOK_SECONDS: Final = 0.5
_GRACE_SECONDS: Final = 30
_REPLACE_SECONDS: Final = 1


def replace_workers_soon() -> None:
    """In the supervisor, from now on: look every second whether each worker is there.

    BentoML has its supervisor (circus, whose own default is a second) look every ten, and passes no option on.
    """
    from bentoml._internal.utils import circus  # noqa: PLC0415

    ours: Any = circus
    ours.create_standalone_arbiter = partial(circus.create_standalone_arbiter, check_delay=_REPLACE_SECONDS)


def end_with_supervisor() -> None:
    """From now on, end this process once its supervisor is gone: in good order, or after half a minute at once."""
    supervisor = int(os.environ.get(SUPERVISOR) or os.getppid())

    def watch() -> None:
        while os.getppid() == supervisor:
            time.sleep(_LOOK_SECONDS)
        logger.error("the supervisor is gone; this worker ends, too")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="supervision", daemon=True).start()
