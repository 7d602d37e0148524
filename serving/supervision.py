"""Workers end when their supervisor is gone: killed, it cannot end them, and they would hold its port for ever."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

logger = logging.getLogger("lotse.service")

_LOOK_SECONDS = 0.5


async def end_with(supervisor: int) -> None:
    """End this process in good order once it is not the child of `supervisor` any more."""
    while os.getppid() == supervisor:
        await asyncio.sleep(_LOOK_SECONDS)
    logger.error("the supervisor is gone; this worker ends, too")
    os.kill(os.getpid(), signal.SIGTERM)
