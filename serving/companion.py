"""A process of its own beside the workers, one a service, for work that no request shall wait for.

Whichever worker gets the lock starts it and sees to it that it runs and does not hang; it holds the lock as long as it
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
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final
from uuid import uuid4

logger = logging.getLogger("lotse.service")

# How often it is looked after, at most.
_START_SECONDS: Final = 1.0
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})

# What a process is told when it starts, one line; of the name of its run.
Orders = Callable[[str], bytes]


class Companion:
    """One of them, as a worker sees it.

    Attributes
    ----------
    process: the one that this worker has started, if it has.
    """

    def __init__(
        self,
        module: str,
        lock: Callable[[str], int | None],
        heard: Callable[[], float],
        silent_seconds: float,
        environment: Mapping[str, str] = _NOTHING,
    ) -> None:
        """Start nothing yet.

        module: that runs; lock: takes the lock for a run of that name, as `take_lock`.
        heard: when the process last gave a sign, seconds since 1970; silent_seconds: after which it hangs.
        environment: of the process, beside ours.
        """
        self._module, self._lock, self._heard, self._silent_seconds = module, lock, heard, silent_seconds
        self._environment = environment
        self.process: subprocess.Popen[bytes] | None = None
        self._orders: Orders | None = None
        self._run, self._begun_at = "", 0.0
        self._tried_at = -_START_SECONDS

    def order(self, orders: Orders) -> None:
        """Tell the process what to do: the one that runs and waits for it, and each that is started later."""
        self._orders = orders
        self._tell()

    def keep(self) -> None:
        """See to it that there is one, and that it does not hang."""
        if time.monotonic() - self._tried_at < _START_SECONDS:
            return
        self._tried_at = time.monotonic()
        if self.process is not None and self.process.poll() is None:
            silent = time.time() - self._heard()
            if min(silent, self._tried_at - self._begun_at) > self._silent_seconds:
                logger.error("%s has given no sign for %.0f s; it is started again", self._module, silent)
                self.close()
            return
        if self.process is not None:
            logger.error("%s has ended; it is started again", self._module)
            self.close()
        run = uuid4().hex
        lock = self._lock(run)
        if lock is None:
            return
        # the open lock goes to the process, which holds it as long as it lives
        self.process = subprocess.Popen(
            [sys.executable, "-m", self._module], stdin=subprocess.PIPE, pass_fds=(lock,),
            env=os.environ | self._environment,
        )  # fmt: skip
        os.close(lock)
        self._begun_at, self._run = self._tried_at, run
        self._tell()

    def _tell(self) -> None:
        if self.process is None or self._orders is None:
            return
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(self._orders(self._run) + b"\n")
            self.process.stdin.flush()

    def close(self) -> None:
        """End it, if this worker has started it."""
        process, self.process = self.process, None
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


def take_lock(path: Path, run: str) -> int | None:
    """An open file that holds the lock until it is closed, and says whose run it is; None if somebody else holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, run.encode(), 0)
    return descriptor
