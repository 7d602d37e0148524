"""The simulated shop: visitors with a hidden intent that drifts, as canonical events with the truth beside them.

Stands in where no export is at hand. Out: `Simulated.events` (the columns of the event, sorted by time) and
`Simulated.truth` (row by row the true probabilities after that event, given the hidden state that no tracker sees).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from features.events import (
    COLUMNS,
    CONSENT_LINK,
    CONSENT_MEASURE,
    SCROLL,
    USER_ENGAGEMENT,
    hash64,
    interactive_by_default,
)
from features.partition import GOLDEN, mixed
from simulation.chain import (
    FIRST_INTENT,
    LANDING,
    PACE_SECONDS,
    PACE_SPREAD,
    STAGES,
    Chain,
    build_chain,
)
from simulation.truth import BOUNCE_SECONDS, GRID, bounce_probability, conversion_probability
from simulation.visits import DAY_MS, draw_visits

# Monday, 2 March 2026, 00:00 UTC: fixed, so that the same seed gives the same bytes for ever.
START_MS: Final = 1_772_409_600_000
UTC_OFFSET_MINUTES: Final = 60

CATEGORIES: Final = ("shoes", "jackets", "shirts", "trousers", "bags", "hats", "watches", "sale")
ITEMS_PER_CATEGORY: Final = 60
_STAGE_PATH: Final = {
    "home": "/",
    "info": "/about",
    "search": "/search",
    "cart": "/cart",
    "checkout": "/checkout",
    "payment": "/checkout/payment",
    "purchase": "/thanks",
}
ITEM_PATH: Final = "/product/:id"

_KIND_SHARE: Final = np.array([0.37, 0.29, 0.18, 0.12, 0.04])
_AGAIN_SHARE: Final = np.array([0.08, 0.25, 0.45, 0.50, 0.30])
# direct, organic, paid, social, email, referral
_CHANNEL_SHARE: Final = np.array(
    [
        [0.10, 0.20, 0.30, 0.30, 0.02, 0.08],
        [0.20, 0.35, 0.15, 0.15, 0.05, 0.10],
        [0.25, 0.45, 0.10, 0.05, 0.05, 0.10],
        [0.35, 0.30, 0.12, 0.03, 0.15, 0.05],
        [0.70, 0.10, 0.00, 0.00, 0.00, 0.20],
    ]
)
# desktop, mobile, tablet
_DEVICE_SHARE: Final = np.array(
    [[0.25, 0.70, 0.05], [0.35, 0.58, 0.07], [0.50, 0.40, 0.10], [0.60, 0.34, 0.06], [1.0, 0.0, 0.0]]
)
_HOUR_WEIGHT: Final = np.array(
    [3, 2, 1, 1, 1, 2, 4, 6, 8, 9, 9, 10, 11, 10, 9, 9, 10, 11, 13, 15, 16, 15, 11, 6], np.float64
)
_WEEKDAY_WEIGHT: Final = np.array([1.0, 0.95, 0.95, 1.0, 0.95, 1.15, 1.3])


class Product(NamedTuple):
    """What the shop sells; price in the shop's currency."""

    item: str
    category: str
    price: float


@dataclass(frozen=True)
class Simulated:
    """A simulated history. n events.

    Attributes
    ----------
    events: the canonical columns, sorted by time.
    truth: aligned with `events`: `conversion` (a purchase strictly later in the session), `exit` (this event was the
        last), `bounce` (NaN once it is decided), all true probabilities after the event; `visitor_number` and
        `session_number` (the visit of that visitor, from 1), `kind` (position in `simulation.chain.KINDS`).
    """

    events: pd.DataFrame
    truth: pd.DataFrame

    @cached_property
    def texts(self) -> dict[int, str]:
        """What each hash of a page, item or category stands for: for sending the events over the wire."""
        return {hash64(text): text for text in (*_pages(), *_items(), *CATEGORIES)}


def simulate(
    events: int | None = None,
    visitors: int | None = None,
    *,
    days: float = 14,
    seed: int = 0,
    start_ms: int = START_MS,
) -> Simulated:
    """Whole visitors until about `events` events or `visitors` visitors; the same seed gives the same bytes.

    Visits begin before the last six hours of the `days`, so that nearly all end inside them.

    Raises
    ------
    ValueError
        Neither or both of `events` and `visitors` are given, or the span is under a day.
    """
    if (events is None) == (visitors is None):
        raise ValueError("give either events= or visitors=, how much to simulate")
    if days < 1:
        raise ValueError(f"days={days}; expected at least 1, a visit begins before the last six hours")
    chain = _chain()
    most = events if events is not None else max(2_000, (visitors or 0) * 60)
    popularity, category_start, price = _catalogue()
    drawn = draw_visits(
        seed, most, visitors if visitors is not None else 2**40, round(days * DAY_MS),
        np.cumsum(_KIND_SHARE), np.cumsum(_arrival(days)), chain.leave, chain.passive, np.cumsum(chain.move, axis=2),
        np.cumsum(_padded_landing(), axis=1), np.cumsum(FIRST_INTENT, axis=1), PACE_SECONDS, PACE_SPREAD,
        np.cumsum(_CHANNEL_SHARE, axis=1), np.cumsum(_DEVICE_SHARE, axis=1), _AGAIN_SHARE,
        np.concatenate([[0.0], np.cumsum(popularity)]), category_start, price, UTC_OFFSET_MINUTES * 60_000,
    )  # fmt: skip
    order = np.argsort(drawn[2], kind="stable")
    return _tables([column[order] for column in drawn], chain, seed, start_ms)


def _tables(columns: list[np.ndarray], chain: Chain, seed: int, start_ms: int) -> Simulated:
    visitor, visit, time, stage, item, category, price, quantity, value = columns[:9]
    channel, device, linked, kind, state, left_ms = columns[9:]
    names = np.array([*STAGES.values(), SCROLL, USER_ENGAGEMENT], np.uint8)[stage]
    out = {
        "visitor": _mixed(visitor, seed),
        "id": _mixed(np.arange(1, len(visitor) + 1), seed + 1),
        "time": time + start_ms,
        "name": names,
        "page": _page_hashes(stage, category),
        "item": _lookup([hash64(text) for text in _items()], item),
        "category": _lookup([hash64(text) for text in CATEGORIES], category),
        "price": price,
        "quantity": quantity,
        "value": value,
        "channel": channel,
        "device": device,
        "interactive": interactive_by_default(names),
        "consent": (CONSENT_MEASURE + CONSENT_LINK * linked).astype(np.uint8),
        "utc_offset": np.full(len(visitor), UTC_OFFSET_MINUTES, np.int32),
    }
    filled = {name: out.get(name, np.full(len(visitor), c.default, c.dtype)) for name, c in COLUMNS.items()}
    seconds_left = np.maximum(left_ms, 0) / 1000.0
    position = seconds_left / BOUNCE_SECONDS * GRID
    below = np.minimum(position.astype(np.int64), GRID - 1)
    table = _bounce()
    low, high = table[kind, state, below], table[kind, state, below + 1]
    truth = {
        "conversion": _conversion()[kind, state],
        "exit": chain.leave[kind, state],
        "bounce": np.where(left_ms > 0, low + (high - low) * (position - below), np.nan),
        "visitor_number": visitor,
        "session_number": visit,
        "kind": kind,
    }
    return Simulated(pd.DataFrame(filled, copy=False), pd.DataFrame(truth, copy=False))


def products() -> list[Product]:
    """The catalogue, by category and, in each, by popularity.

    >>> products()[0].item, len(products())
    ('shoes-00', 480)
    """
    _, _, price = _catalogue()
    priced = zip(_items(), price.tolist(), strict=True)
    return [Product(item, item.rpartition("-")[0], money) for item, money in priced]


def _arrival(days: float) -> np.ndarray:
    """Weight of every hour of the span: the shop's day, its week, and a slow growth."""
    hours = np.arange(int(days * 24))
    local = hours + UTC_OFFSET_MINUTES // 60
    season = _HOUR_WEIGHT[local % 24] * _WEEKDAY_WEIGHT[local // 24 % 7]
    return season * (1 + 0.3 * hours / max(len(hours), 1))


def _padded_landing() -> np.ndarray:
    """LANDING over all stages: visits begin on the first five."""
    return np.pad(LANDING, ((0, 0), (0, len(STAGES) - LANDING.shape[1])))


@lru_cache(maxsize=1)
def _chain() -> Chain:
    return build_chain()


@lru_cache(maxsize=1)
def _conversion() -> np.ndarray:
    return conversion_probability(_chain())


@lru_cache(maxsize=1)
def _bounce() -> np.ndarray:
    return bounce_probability(_chain())


@lru_cache(maxsize=1)
def _catalogue() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Popularity and price of every item, and where each category's items begin. The catalogue never changes."""
    random = np.random.default_rng(2026)
    count = len(CATEGORIES) * ITEMS_PER_CATEGORY
    rank = np.tile(np.arange(1, ITEMS_PER_CATEGORY + 1), len(CATEGORIES))
    level = np.repeat(random.lognormal(3.6, 0.5, len(CATEGORIES)), ITEMS_PER_CATEGORY)
    price = np.round(level * random.lognormal(0, 0.35, count), 2)
    starts = np.arange(len(CATEGORIES) + 1) * ITEMS_PER_CATEGORY
    return 1.0 / rank, starts, price


def _items() -> list[str]:
    return [f"{category}-{number:02d}" for category in CATEGORIES for number in range(ITEMS_PER_CATEGORY)]


def _pages() -> list[str]:
    return [*_STAGE_PATH.values(), *(f"/category/{category}" for category in CATEGORIES), ITEM_PATH]


def _page_hashes(stage: np.ndarray, category: np.ndarray) -> np.ndarray:
    """Page of each event: by its stage, lists by their category; passive events name none."""
    by_stage = [hash64(_STAGE_PATH.get(name, ITEM_PATH)) for name in STAGES]
    pages = np.array([*by_stage, 0, 0], np.int64)[stage]
    lists = stage == list(STAGES).index("list")
    pages[lists] = np.array([hash64(f"/category/{name}") for name in CATEGORIES], np.int64)[category[lists]]
    return pages


def _lookup(values: list[int], place: np.ndarray) -> np.ndarray:
    """values[place], 0 where the place is -1."""
    return np.array([*values, 0], np.int64)[place]


def _mixed(numbers: np.ndarray, seed: int) -> np.ndarray:
    """Counting numbers as 64 well-mixed bits: one to one, so never a collision."""
    with np.errstate(over="ignore"):
        shifted = numbers.astype(np.uint64) + np.uint64(seed) * GOLDEN
    return mixed(shifted.view(np.int64)).view(np.int64)
