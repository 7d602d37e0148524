"""While the store is away: every question to it has a deadline, and events wait on the disk until it is back.

A store that fails is asked again by a circuit breaker (pybreaker): after some failures in a row nobody waits for it any
more, until a trial succeeds. Events that it did not take go to this worker's spool, and are acknowledged once they are
there. From then on all events of this worker go there, so that their order is kept, until the spool was replayed to the
end.

Exactly once: a write that failed may have been done all the same, where the store waits. So every write has a token
before it is tried, drawn at random, and a record that knows the token is not changed again. The spool keeps the tokens.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pybreaker import CircuitBreaker, CircuitBreakerError

from serving.memory import EVENT
from serving.spool import Addition, Spool, SpooledTurn, SpooledVisit, new_spool, of_others, orphans
from serving.stores import KEY_BYTES, StoreError
from serving.stores.encryption import seal_from_environment

if TYPE_CHECKING:
    from serving.group import EventVisit
    from serving.metrics import Metrics
    from serving.settings import StoreSettings
    from serving.turn import Turn

logger = logging.getLogger("lotse.outages")

STORE_UNREACHABLE: Final = "store_unreachable"
# Turns that are replayed together: so many events, which came within so long. All count as come with the last of them,
# which moves the moment when a session is handed on by no more than that.
_TOGETHER: Final = 500
_WITHIN_MS: Final = 1_000

_WRITING_SECONDS: Final = 0.01

Fold = Callable[[Spool, Collection[SpooledTurn]], Awaitable[None]]


class _LateError(StoreError):
    """It may still be done."""


# The other keys of a visit, by its own and when it came, as they lie on the disk; and back.
Veil = Callable[[bytes, Sequence[bytes], int], list[bytes]]


class Outage:
    """What one worker does when its store fails.

    Attributes
    ----------
    active: whether events go to the spool without asking the store.
    """

    def __init__(self, settings: StoreSettings, metrics: Metrics, veil: Veil) -> None:
        self.active = False
        self._veil = veil
        self._settings, self._metrics = settings, metrics
        # a call never takes longer than this; a store on another machine gives up earlier by itself
        self._deadline = max(settings.deadline_seconds, settings.timeout_seconds)
        self._breaker = CircuitBreaker(
            settings.failures, settings.retry_seconds, exclude=[_is_ours], name="store", throw_new_error_on_trip=False
        )
        self._folder, self._sync = Path(settings.spool), settings.durability == "disk"
        self._seal = seal_from_environment()
        self._own: Spool | None = None
        self._adopted: list[Spool] = []
        self._replaying = False

    async def ask(self, call: Callable[[], Any]) -> Any:
        """What a method of the store gives, within the deadline.

        Raises
        ------
        StoreError
            It failed, took too long, or failed so often before that it is not asked.
        """
        try:
            with self._breaker.calling():
                result = call()
                if isinstance(result, Awaitable):
                    async with asyncio.timeout(self._deadline):
                        result = await result
                return result
        except CircuitBreakerError as error:
            raise StoreError("the store has failed again and again; it is tried again in a moment") from error
        except TimeoutError as error:
            raise StoreError(f"the store has not answered within {self._deadline} s") from error

    def failed(self, what: str, error: StoreError) -> None:
        """Count that the store failed, and say so where it is news."""
        self._metrics.store_errors[what] += 1
        if not self.active:
            logger.warning("the store has failed: %s", error)

    async def keep(self, turn: Turn, received_ms: int) -> None:
        """Keep a turn's events until the store is back.

        Raises
        ------
        StoreError
            They cannot be kept.
        """
        visits = [
            SpooledVisit(_packed(visit), self._veil(visit.key, visit.others(), received_ms), visit.token)
            for visit in turn.visits.values()
        ]
        spooled = SpooledTurn(received_ms, visits, self._veiled(turn.unlinked, received_ms))
        own = self._own
        if own is None:
            own = self._own = new_spool(self._folder, **self._how())
            logger.warning("events are buffered until the store is back")
        try:
            addition = own.add(spooled)
        finally:
            self._noted()
        try:
            if self._sync:
                await self._written(addition)
            else:
                addition.write()
        except _LateError:
            raise
        except StoreError:
            addition.withdraw()
            self._noted()
            raise

    def _veiled(self, keys: Sequence[bytes], received_ms: int) -> list[bytes]:
        """Keys as they may lie on a disk beside those of a day, and before them what they are veiled with."""
        if not keys:
            return []
        drawn = secrets.token_bytes(KEY_BYTES)
        veiled = self._veil(drawn, keys, received_ms)
        if not veiled:
            raise StoreError("today's key cannot be written, so neither can what it veils")
        return [drawn, *veiled]

    async def _written(self, addition: Addition) -> None:
        """Written and synced, in a thread and within the deadline."""
        writing = asyncio.ensure_future(asyncio.to_thread(addition.write))
        await asyncio.wait([writing], timeout=self._deadline)
        if writing.done():
            return writing.result()
        # it is not acknowledged, but replayed if it gets there
        writing.add_done_callback(lambda done: addition.withdraw() if done.exception() else None)
        raise _LateError(f"the disk has not taken the events within {self._deadline} s")

    async def replay(self, fold: Fold) -> int:
        """Give the store what waits for it, until nothing does; returns how many events.

        fold: has the store fold some turns of different visitors.

        Raises
        ------
        StoreError
            The store is still away.
        """
        if self._replaying:
            return 0
        self._replaying = True
        count = 0
        try:
            self._adopted += orphans(self._folder, **self._how())
            self._noted()
            while self._adopted:
                count += await self._emptied(self._adopted[0], fold)
                self._adopted.pop(0).close()
            if self._own is not None:
                count += await self._emptied(self._own, fold)
                # nothing was awaited since it was seen empty
                own, self._own = self._own, None
                own.close()
        finally:
            self._replaying = False
            self._noted()
            if count:
                logger.info("%d buffered events are in the store", count)
        return count

    async def _emptied(self, spool: Spool, fold: Fold) -> int:
        count = 0
        while spool.turns:
            turns = spool.first(_TOGETHER, _WITHIN_MS)
            if turns:
                await fold(spool, turns.values())
                count += spool.drop(turns)
                self._noted()
            # what is being written comes soon, and requests go first
            await asyncio.sleep(0 if turns else _WRITING_SECONDS)
        return count

    def spools(self) -> Iterator[Spool]:
        """Every spool on this machine; nothing may be awaited while one is looked at."""
        ours = [*self._adopted, *([self._own] if self._own else [])]
        yield from ours
        yield from of_others(self._folder, {spool.folder.name for spool in ours}, **self._how())

    def close(self) -> None:
        """Let go of the spools: what is in them is taken over by the next worker that looks."""
        for spool in (*self._adopted, *([self._own] if self._own else [])):
            spool.close()
        self._adopted, self._own = [], None

    def _how(self) -> dict[str, Any]:
        return {"limit_bytes": int(self._settings.spool_mib * 2**20), "sync": self._sync, "seal": self._seal}

    def _noted(self) -> None:
        own = self._own
        self.active = own is not None and own.turns > 0
        self._metrics.buffered_events = sum(spool.events for spool in self._adopted) + (own.events if own else 0)


def _is_ours(error: Any) -> bool:
    """Whether an error says nothing about the store."""
    return not isinstance(error, StoreError | TimeoutError)


def _packed(visit: EventVisit) -> bytes:
    packed, size = visit.group.memory.packed, EVENT.size
    return b"".join(packed[place * size : (place + 1) * size] for place in visit.events)
