"""Buffered turns are folded as if they came now: each visit as it was, known again by its write's token."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING

from serving.sessions import key_of
from serving.stores import StoreError
from serving.turn import Turn

if TYPE_CHECKING:
    from serving.engine import Engine
    from serving.spool import Spool, SpooledTurn

logger = logging.getLogger("lotse.outages")


async def replay(engine: Engine) -> int:
    """Give the store the events that wait for it; returns how many it took. If it is still away, it is asked again."""

    async def fold(spool: Spool, turns: Collection[SpooledTurn]) -> None:
        await _fold(engine, spool, turns)

    try:
        return await engine.outage.replay(fold)
    except StoreError:
        engine.metrics.store_errors["replay"] += 1
        return 0


async def _fold(engine: Engine, spool: Spool, turns: Collection[SpooledTurn]) -> None:
    """Have the store fold turns of different visitors; all count as come with the last of them.

    Raises
    ------
    StoreError
        It is away.
    """
    visits = [visit for turn in turns for visit in turn.visits]
    events = [spool.events_of(visit) for visit in visits]
    arrived = [turn.received_ms for turn in turns for _ in turn.visits]
    others = [
        engine.pseudonyms.veiled(key_of(theirs[0].visitor), visit.others, at)
        for visit, theirs, at in zip(visits, events, arrived, strict=True)
    ]

    def earlier(place: str, linked: bool, now_ms: int) -> list[bytes]:
        del linked, now_ms
        return others[int(place)]

    received = max(turn.received_ms for turn in turns)
    turn = Turn(engine.lineup, sum(map(len, events)), received, earlier)
    for place, (visit, theirs) in enumerate(zip(visits, events, strict=True)):
        turn.add(theirs, [str(place)] * len(theirs), visit.token)
    for one in turns:
        if one.unlinked:
            drawn, *veiled = one.unlinked
            keys = engine.pseudonyms.veiled(drawn, veiled, one.received_ms)
            if not keys:
                logger.error("%d withdrawals waited for the store until nobody could tell whose they are", len(veiled))
            turn.unlinked += keys
    await engine.fold_turn(turn)
    engine.closed.unlink(turn.withdrawn)
    engine.metrics.retired_records += sum(group.retired for group in turn.groups.values())
    turn.close()
