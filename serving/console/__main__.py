"""The process that looks at what runs, for all consoles of a worker: started when one opens, ended after the last.

It gives way to every other process, and rests for three times as long as it looked: a core that has nothing else to do
is taken for a quarter at most, however many sessions run. It ends with its worker.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from serving.console.health import Health
from serving.console.listing import Listing
from serving.console.looking import Look, Looker
from serving.console.orders import Orders, Wanted
from serving.console.shown_flags import ShownFlags
from serving.console.totals import totals
from serving.stores import StoreError, done
from serving.workers import told

logger = logging.getLogger("lotse.console")

_NICE: Final = 19
_REST: Final = 3.0
# Counting takes a round trip for each part of a store that is shared.
_COUNT_SECONDS: Final = 10.0
_MOST_LINE: Final = 2**20
_MEMORY: Final = "memory:"

_encode: Final = msgspec.json.Encoder().encode


class Watch:
    """What one process knows and tells.

    Attributes
    ----------
    wanted: what is asked for; changed: set when that is something else, or nobody asks any more (`over`).
    """

    def __init__(self, orders: Orders) -> None:
        self.settings = settings = orders.parsed()
        self._counted = Path(orders.counted) if orders.counted else None
        self.wanted, self.changed, self.over = Wanted(), asyncio.Event(), False
        # a store in the worker's memory cannot be looked at from here
        self._shown = not settings.store.url.startswith(_MEMORY)
        self._looker: Looker | None = None
        self._listing = Listing(settings.console.rows, settings.session.timeout_minutes * 60)
        self._health = Health()
        self._shown_flags = ShownFlags(settings)
        self._look: Look | None = None
        self._reachable = True
        self._records: int | None = None
        self._counted_at = float("-inf")

    async def run(self) -> None:
        """Look and tell, until nobody asks any more."""
        while not self.over:
            begin = time.monotonic()
            await self._refresh()
            self._tell(self._service(), self._totals())
            self._lists()
            rest = max(self.settings.console.seconds - (time.monotonic() - begin), _REST * (time.monotonic() - begin))
            until = time.monotonic() + rest
            while not self.over and (left := until - time.monotonic()) > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self.changed.wait()
                    # somebody looks at another list: what was seen last is there at once
                    self._lists()
        if self._looker is not None:
            await self._looker.close()

    async def _refresh(self) -> None:
        if not self._shown:
            return
        try:
            # some stores cannot be opened while they are away
            looker = self._looker = self._looker or Looker(self.settings)
            looker.follow()
            await self._shown_flags.follow(looker)
            self._look = await looker.look()
            if time.monotonic() - self._counted_at >= _COUNT_SECONDS:
                self._counted_at = time.monotonic()
                self._records = await done(looker.store.count())
            self._reachable = True
        except StoreError as error:
            if self._reachable:
                logger.warning("sessions cannot be looked at: %s", type(error).__name__)
            self._reachable, self._look = False, None

    def _totals(self) -> tuple[str, Any]:
        return "totals", None if self._look is None else totals(self._look)

    def _service(self) -> tuple[str, Any]:
        """The store, the models, and what the workers count."""
        kind = self.settings.store.url.partition(":")[0]
        health: dict[str, Any] = {
            "at_ms": time.time_ns() // 1_000_000,
            "store": {"kind": kind, "shown": self._shown, "reachable": self._reachable},
            "records": self._records,
            "reasons": {} if self._looker is None else self._looker.lineup.champions.reasons,
            "registry": bool(self.settings.models.uri),
            "most_rows": self.settings.console.rows,
        }
        if self._counted is not None:
            with suppress(OSError):  # the folder goes with the service
                health |= self._health.told(told(self._counted), time.monotonic())
        return "health", health

    def _lists(self) -> None:
        self.changed.clear()
        self._listing.keep(self.wanted.lists)
        while self.wanted.anew:
            self._listing.forget(self.wanted.anew.pop())
        if self._look is not None:
            look, arms, flags = self._look, self._shown_flags.arms, self._shown_flags.flags
            self._tell(*((f"rows:{name}", self._listing.rows(look, name, arms, flags)) for name in self.wanted.lists))

    def _tell(self, *lines: tuple[str, Any]) -> None:
        out = b"".join(b"%s %s\n" % (name.encode(), _encode(data)) for name, data in lines)
        sys.stdout.buffer.write(out)
        sys.stdout.buffer.flush()


async def _listen(lines: asyncio.StreamReader, watch: Watch) -> None:
    """Hear what is wanted, until nobody is there."""
    while line := await lines.readline():
        wanted = msgspec.json.decode(line, type=Wanted)
        # what was not told yet is to be told still
        wanted.anew += watch.wanted.anew
        watch.wanted = wanted
        watch.changed.set()
    watch.over = True
    watch.changed.set()


async def _main() -> None:
    lines = asyncio.StreamReader(limit=_MOST_LINE)
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    line = await lines.readline()
    if not line:
        return
    watch = Watch(msgspec.json.decode(line, type=Orders))
    listening = asyncio.create_task(_listen(lines, watch))
    try:
        await watch.run()
    finally:
        listening.cancel()


def main() -> None:
    """What the process does."""
    os.nice(_NICE)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # Ctrl-C in a terminal reaches it, too; it ends with its worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(BrokenPipeError):
        asyncio.run(_main())


if __name__ == "__main__":
    main()
