"""A process of its own beside the workers, one a service, for work that no request shall wait for.

Whichever worker holds the lock starts it and sees to it that it runs and does not hang; it holds the lock as long as it
lives, and ends when its standard input does, because its worker has ended. Then another worker starts the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

logger = logging.getLogger("lotse.service")

# How often it is looked after, at most.
_START_SECONDS: Final = 1.0
# Numerical libraries would take a thread a core.
_ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Companion:
    """One of them, as a worker sees it."""

    def __init__(self, module: str, lock: Path, silent_seconds: float) -> None:
        """module: that runs; lock: its file, whose time the process renews; silent_seconds: after which it hangs."""
        self._module, self._lock, self._silent_seconds = module, lock, silent_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._tried_at = -_START_SECONDS

    def keep(self, orders: bytes) -> None:
        """See to it that it runs; orders: one line for its standard input when it starts."""
        if time.monotonic() - self._tried_at < _START_SECONDS:
            return
        self._tried_at = time.monotonic()
        if self._process is not None and self._process.poll() is None:
            silent = time.time() - self._lock.stat().st_mtime
            if silent > self._silent_seconds:
                logger.error("%s has given no sign for %.0f s; it is started again", self._module, silent)
                self.close()
            return
        if self._process is not None:
            logger.error("%s has ended; it is started again", self._module)
            self.close()
        descriptor = self._take_lock()
        if descriptor is None:
            return
        command = [sys.executable, "-m", self._module, str(self._lock)]
        # the open lock goes to the process, which holds it as long as it lives
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, pass_fds=(descriptor,), env=os.environ | _ONE_THREAD
        )
        os.close(descriptor)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(orders + b"\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """End it, if this worker started it."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _take_lock(self) -> int | None:
        """An open file that holds the lock until it is closed; None if somebody else holds it."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        os.utime(self._lock)
        return descriptor
