"""Workers end when their supervisor is gone: killed, it cannot end them, and they would hold its port for ever."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from typing import Final

logger = logging.getLogger("lotse.service")

# `lotse serve` says here which process it becomes.
SUPERVISOR: Final = "LOTSE_SUPERVISOR"
_LOOK_SECONDS: Final = 0.5
_GRACE_SECONDS: Final = 30


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
