"""The learner: one process a service that counts closed sessions and makes what `serving.experiments` assigns by.

Started by a worker (`serving.companion`) with its orders as one line of JSON on its standard input; when that input
ends, because the worker did, so does the learner, and another worker starts the next one. It gives way to every other
process, so that no request waits for it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final

import msgspec

from serving.experiments.counted import put_aside
from serving.experiments.learner import Learner
from serving.experiments.learning import LOCK, Orders

logger = logging.getLogger("lotse.learning")

_NICE: Final = 19
_ALIVE_SECONDS: Final = 1.0


def learn(orders: Orders) -> None:
    """Look again and again, for ever; the lock's time says that it is alive."""
    sign = Path(orders.learned) / LOCK
    learner: Learner | None = None
    while True:
        begin = time.monotonic()
        try:
            learner = learner or Learner(orders, lambda: os.utime(sign))
            learner.count(_now_ms())
            learner.publish(_now_ms())
        except Exception as error:
            # what is in memory may have gone ahead of what was committed
            if learner is not None:
                learner.close()
            learner = None
            if put_aside(Path(orders.learned), error):
                continue
            logger.exception("closed sessions cannot be counted; it is tried again")
        while (left := orders.learn_seconds - (time.monotonic() - begin)) > 0:
            os.utime(sign)
            time.sleep(min(left, _ALIVE_SECONDS))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def main() -> None:
    """What the process does."""
    os.nice(_NICE)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # Ctrl-C in a terminal reaches it, too; it ends with its worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = sys.stdin.buffer.readline()

    def listen_to_the_worker() -> None:
        while sys.stdin.buffer.readline():
            pass
        os._exit(0)

    threading.Thread(target=listen_to_the_worker, daemon=True).start()
    if line:
        learn(msgspec.json.decode(line, type=Orders))


if __name__ == "__main__":
    main()
