"""Drawing the visits: visitors one after the other, each with all their visits, in one compiled loop.

The loop writes codes (stage, item number, category number); `simulation.shop` turns them into the canonical columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from simulation.chain import (
    ADD,
    BOT,
    BOUGHT,
    CART,
    CHECKOUT,
    INTENTS,
    ITEM,
    LEAST_GAP_SECONDS,
    LIST,
    MOST_GAP_SECONDS,
    PACE_PER_INTENT,
    PASSIVE_SECONDS,
    PASSIVE_SPREAD,
    PAYMENT,
    REMOVE,
    SEARCHED,
    STAGES,
)

_STAGES = len(STAGES)
_PASSIVE_STAGE_CODE = _STAGES
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@njit(cache=True)
def _draw(cumulative: Any) -> int:
    """A place in a cumulative distribution."""
    u = np.random.random() * cumulative[-1]
    return min(np.searchsorted(cumulative, u, side="right"), len(cumulative) - 1)


@njit(cache=True)
def draw_visits(  # noqa: PLR0912, PLR0915  (one loop, all state in registers: five million events in seconds)
    seed: int, most_events: int, most_visitors: int, span_ms: int, kind_share: Any, arrival: Any, leave: Any,
    passive: Any, move: Any, landing: Any, first_intent: Any, pace: Any, spread: Any, channel_share: Any,
    device_share: Any, again_share: Any, item_popularity: Any, category_start: Any, price: Any, local_offset_ms: int,
) -> Any:  # fmt: skip
    """Events of whole visitors until `most_events` or `most_visitors` is reached. All times in ms from the start.

    kind_share, arrival (by hour of the span), item_popularity and the last axes of landing, first_intent, move,
    channel_share, device_share are cumulative.
    """
    np.random.seed(seed)
    size = most_events + 100_000
    visitor = np.empty(size, np.int64)
    visit = np.empty(size, np.int32)
    time = np.empty(size, np.int64)
    stage_out = np.empty(size, np.int8)
    item_out = np.empty(size, np.int32)
    category_out = np.empty(size, np.int32)
    price_out = np.empty(size, np.float64)
    quantity_out = np.empty(size, np.float64)
    value_out = np.empty(size, np.float64)
    channel_out = np.empty(size, np.uint8)
    device_out = np.empty(size, np.uint8)
    linked_out = np.empty(size, np.uint8)
    kind_out = np.empty(size, np.uint8)
    state_out = np.empty(size, np.int32)
    left_ms = np.empty(size, np.int64)  # of the bounce limit; -1 once bounce is decided
    n = 0
    number = 0
    categories = len(category_start) - 1
    while n < most_events and number < most_visitors:
        number += 1
        kind = _draw(kind_share)
        linked = np.uint8(np.random.random() < 0.6)
        device = np.uint8(1 + _draw(device_share[kind]))
        if kind == BOT and np.random.random() < 0.5:
            device = np.uint8(5)
        favourite = np.random.randint(0, categories)
        at = np.int64(_draw(arrival) * HOUR_MS + np.random.random() * HOUR_MS)
        lift = 0.0
        visits = 0
        while at < span_ms - 6 * HOUR_MS:
            if n + 5_000 > size:
                break
            visits += 1
            local = at + local_offset_ms
            hour = local // HOUR_MS % 24
            weekend = (local // DAY_MS + 3) % 7 >= 5
            intent = _draw(first_intent[kind])
            # evenings, weekends and earlier visits make buyers; kinds keep their character
            chance = lift + (0.15 if hour >= 19 else 0.0) + (0.15 if weekend else 0.0)
            if kind != BOT and intent < INTENTS - 1 and np.random.random() < chance:
                intent += 1
            stage = _draw(landing[kind])
            filled = 0
            channel = np.uint8(1 + _draw(channel_share[kind]))
            if visits > 1 and np.random.random() < 0.5:
                channel = np.uint8(5 if np.random.random() < 0.4 else 1)
            category = favourite
            item = -1
            cart_price, cart_quantity, cart_value = 0.0, 0.0, 0.0
            now = at
            interactive = 0
            is_passive = False
            while True:
                if n + 2 > size:
                    break
                state = (intent * _STAGES + stage) * 2 + filled
                quantity, value, shown = 1.0, 0.0, 0.0
                if not is_passive:
                    interactive += 1
                    eager = intent / (INTENTS - 1)
                    if stage in (LIST, SEARCHED) and np.random.random() > 0.35 + 0.5 * eager:
                        category = np.random.randint(0, categories)
                    if stage == ITEM and (item < 0 or np.random.random() > 0.1 + 0.35 * eager):
                        first, last = category_start[category], category_start[category + 1]
                        u = np.random.random() * (item_popularity[last] - item_popularity[first])
                        item = (
                            np.searchsorted(item_popularity[first + 1 : last + 1], item_popularity[first] + u) + first
                        )
                        item = min(item, last - 1)
                    if stage == ADD:
                        item = max(item, category_start[category])
                        cart_quantity = 1.0 + (np.random.random() < 0.2)
                        cart_price = price[item]
                        cart_value += cart_price * cart_quantity
                        quantity, value = cart_quantity, cart_price * cart_quantity
                    if stage == REMOVE:
                        quantity = cart_quantity
                        value = cart_price * cart_quantity
                        cart_value = max(cart_value - value, 0.0) if filled else 0.0
                    if stage in (CART, CHECKOUT, PAYMENT, BOUGHT):
                        value = cart_value
                    if stage in (ITEM, ADD, REMOVE) and item >= 0:
                        shown = price[item]
                about_item = stage in (ITEM, ADD, REMOVE) and item >= 0
                visitor[n], visit[n], time[n] = number, visits, now
                stage_out[n] = _PASSIVE_STAGE_CODE + (np.random.random() < 0.4) if is_passive else stage
                item_out[n] = item if about_item else -1
                category_out[n] = category if about_item or stage in (LIST, SEARCHED) else -1
                price_out[n], quantity_out[n], value_out[n] = shown, quantity, value
                channel_out[n], device_out[n], linked_out[n] = channel, device, linked
                kind_out[n], state_out[n] = kind, state
                undecided = interactive <= 1 and now - at < 10_000 and stage != BOUGHT
                left_ms[n] = 10_000 - (now - at) if undecided else -1
                n += 1
                if stage == BOUGHT and not is_passive:
                    cart_value = 0.0
                if np.random.random() < leave[kind, state]:
                    break
                is_passive = np.random.random() < passive[kind, state]
                if is_passive:
                    gap = LEAST_GAP_SECONDS + PASSIVE_SECONDS * np.exp(PASSIVE_SPREAD * np.random.normal())
                else:
                    median = pace[kind] * PACE_PER_INTENT**intent
                    gap = LEAST_GAP_SECONDS + median * np.exp(spread[kind] * np.random.normal())
                    target = _draw(move[kind, state])
                    filled = target % 2
                    stage = target // 2 % _STAGES
                    intent = target // 2 // _STAGES
                now += np.int64(min(gap, MOST_GAP_SECONDS) * 1000)
            lift = min(lift + 0.15, 0.45)
            if np.random.random() > again_share[kind]:
                break
            at = now + HOUR_MS + np.int64(40.0 * HOUR_MS * np.exp(1.0 * np.random.normal()))
    return (
        visitor[:n], visit[:n], time[:n], stage_out[:n], item_out[:n], category_out[:n], price_out[:n],
        quantity_out[:n], value_out[:n], channel_out[:n], device_out[:n], linked_out[:n], kind_out[:n],
        state_out[:n], left_ms[:n],
    )  # fmt: skip
