"""Carts of trackers that send the whole cart every time: what changed since the visitor's last one.

A visitor's last cart lies in the store, in a record of its own beside the session's, under a key that is made from the
visitor's pseudonym. It holds hashes and numbers: of each product the item, its category, price and quantity. So all
workers know it, and it survives them. It counts as long as the session goes on, an order empties it, and it is
forgotten some timeouts after its last change: to the sweeper it looks like a session that was handed on, so every store
forgets it when it is due without knowing of carts.

A change is written down before its events are folded. A request that is repeated because its answer was lost finds its
own change there and is told it again: the events have the same ids, and the record knows as many (`serving.tails`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from features.events import hash64
from features.sessions import HEADER_WORDS
from features.trackers.matomo import cart_changes
from serving.sessions import STATE, Erasure
from serving.stores import KEY_BYTES, Change, Entry, Moved, Store, Value

if TYPE_CHECKING:
    from serving.requests import View

MOST_PRODUCTS: Final = 500
_KEPT_TIMEOUTS: Final = 4
# A request is repeated at once, or after the pauses of a client on a server.
_REPEATED_MS: Final = 60_000
# A session begins a moment after the cart that came with its first event; the silence before it is a minute at least.
_BEGINS_MS: Final = 10_000
_REMEMBERED: Final = 4
# A visitor's record has a digest of fields and the consent to link where this has nothing.
_NO_RECORD: Final = bytes(8 * HEADER_WORDS)
_HEAD: Final = Struct(f"<q{_REMEMBERED}q")
_PRODUCT: Final = Struct("<qqddd")


class Product(NamedTuple):
    """A product of a cart: hashes of item and category, unit price as the shop tells it, quantity."""

    item: int
    category: int
    price: float
    quantity: float


class Changed(NamedTuple):
    """What a request brought.

    products: those of which there are more now (quantity: how many) or fewer (negative) than before; none of an order.
    repeated: the request came before, and what it did is not to be told again.
    """

    products: Sequence[Product]
    repeated: bool


class Keys(Protocol):
    """Keys of a visitor's session (raw id): where it belongs now, then where one may lie that began earlier."""

    def __call__(self, raw: str, *, linked: bool) -> Sequence[bytes]:
        """linked: whether visits may be linked."""


class Carts:
    """The carts of one service. ask: asks the store within a deadline; look: the session that runs at a moment."""

    def __init__(
        self,
        store: Store,
        ask: Callable[[Callable[[], Any]], Awaitable[Any]],
        keys: Keys,
        look: Callable[[str, int], Awaitable[View | None]],
        timeout_ms: int,
    ) -> None:
        self._store, self._ask, self._keys, self._look, self._timeout = store, ask, keys, look, timeout_ms

    async def exchange(
        self, raw: str, request: str, cart: Iterable[Product], at_ms: int, now_ms: int, *, linked: bool, ordered: bool
    ) -> Changed:
        """Put a cart in place of the visitor's last one, and tell the difference.

        request: names it and no other; "" if nothing does, then it is not known again. at_ms: its time; now_ms: when
        it came; ordered: these products were bought, and the cart is empty now.

        Raises
        ------
        StoreError
            Nobody can tell what changed.
        """
        keys = [cart_key(key) for key in self._keys(raw, linked=linked)]
        visit = Exchange(keys, hash64(request), cart, at_ms, now_ms, self._timeout, ordered=ordered)
        await self._ask(partial(self._store.apply, [visit]))
        if visit.in_doubt:
            view = await self._look(raw, at_ms)
            visit.since = at_ms if view is None else view.started_at - _BEGINS_MS
            await self._ask(partial(self._store.apply, [visit]))
        return Changed(visit.changed, visit.repeated)

    async def forget(self, raw: str, *, linked: bool) -> None:
        """There is no cart any more: the visitor's session has ended.

        Raises
        ------
        StoreError
            It may still be there.
        """
        for key in dict.fromkeys(self._keys(raw, linked=linked)):
            await self._ask(partial(self._store.apply, [Erasure(cart_key(key))]))


class Exchange:
    """One cart in place of another.

    Attributes
    ----------
    changed, repeated: as of `Changed`.
    in_doubt: nothing was done, because the last cart is so old that another session may have begun since.
    since: when the session began, ms; None as long as that is not known.
    """

    def __init__(
        self, keys: Sequence[bytes], request: int, cart: Iterable[Product], at_ms: int, now_ms: int, timeout_ms: int,
        *, ordered: bool,
    ) -> None:  # fmt: skip
        self.key, *self._others = keys
        self.entry: Entry | None = None
        self.changed: list[Product] = []
        self.repeated = self.in_doubt = False
        self.since: int | None = None
        self._request, self._at, self._now, self._timeout = request, at_ms, now_ms, timeout_ms
        self._ordered = ordered
        self._cart: dict[int, Product] = {}
        for product in cart:
            known = self._cart.get(product.item)
            if known is not None or len(self._cart) < MOST_PRODUCTS:
                more = known.quantity if known else 0.0
                self._cart[product.item] = product._replace(quantity=product.quantity + more)

    def others(self) -> Sequence[bytes]:
        """Keys before midnight, and before consent."""
        return self._others

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change | None:
        """Tell what changed, and keep the new cart."""
        self.changed, self.repeated, self.in_doubt = [], False, False
        moved = None
        if value is None and others:
            key, value = others[0]
            moved = Moved(key, bytes(value))
        kept = None if value is None else _Kept.of(value)
        if kept is not None and kept.due_ms <= self._now:  # it is about to be swept
            kept = None
        if kept is not None and self._request and self._request in kept.requests:
            changed = _difference(kept.products, kept.before, _quantities(kept.products))
            just_now = self._request == kept.requests[0] and abs(self._at - kept.changed_at) < _REPEATED_MS
            # without products it is an order that a page was loaded again for: how many it had is not known any more
            again = just_now and bool(self._cart if self._ordered else changed)
            self.changed, self.repeated = changed if again else [], not again
            return None
        known: dict[int, Product] = {}
        if kept is not None and self._at - kept.changed_at <= self._timeout:
            known = kept.products
        elif kept is not None and self.since is None:
            self.in_doubt = True
            return None
        elif kept is not None and self.since is not None and kept.changed_at >= self.since:
            known = kept.products
        due_ms = self._now + _KEPT_TIMEOUTS * self._timeout
        requests = (self._request, *(kept.requests if kept else ()))
        before, now, products = _quantities(known), _quantities(self._cart), {**known, **self._cart}
        if self._ordered:
            before, now, products = {}, {}, {}
        self.changed = _difference(products, before, now)
        return Change(_Kept(due_ms, self._at, requests, products, before).packed(self._now, now), due_ms, moved)


class _Kept(NamedTuple):
    """A cart in the store.

    requests: the latest, newest first; products: with their quantities as they are, before: as they were before the
    last change.
    """

    due_ms: int
    changed_at: int
    requests: Sequence[int]
    products: dict[int, Product]
    before: dict[int, float]

    @classmethod
    def of(cls, value: Value) -> _Kept:
        """What a value of the store says."""
        state, _ = STATE.unpack_from(value)
        at = STATE.size + len(_NO_RECORD)
        changed_at, *requests = _HEAD.unpack_from(value, at)
        products, before = {}, {}
        for place in range(at + _HEAD.size, len(value), _PRODUCT.size):
            item, category, price, had, has = _PRODUCT.unpack_from(value, place)
            products[item], before[item] = Product(item, category, price, has), had
        return cls(state >> 1, changed_at, requests, products, before)

    def packed(self, now_ms: int, quantities: dict[int, float]) -> bytes:
        """A value of the store; quantities: what there is of the products now."""
        requests = (*self.requests, *(0,) * _REMEMBERED)[:_REMEMBERED]
        parts = [STATE.pack(self.due_ms << 1 | 1, now_ms), _NO_RECORD, _HEAD.pack(self.changed_at, *requests)]
        for item, product in self.products.items():
            had, has = self.before.get(item, 0.0), quantities.get(item, 0.0)
            if had or has:
                parts.append(_PRODUCT.pack(item, product.category, product.price, had, has))
        return b"".join(parts)


def cart_key(key: bytes) -> bytes:
    """The key of the cart of a visitor whose session has that key; who erases the one erases the other."""
    return hashlib.blake2b(key, digest_size=KEY_BYTES, person=b"lotse-cart").digest()


def erasures_of(key: bytes) -> list[Erasure]:
    """What erases a visitor's record, and then the cart."""
    return [Erasure(key), Erasure(cart_key(key))]


def _quantities(products: dict[int, Product]) -> dict[int, float]:
    return {item: product.quantity for item, product in products.items() if product.quantity}


def _difference(products: dict[int, Product], before: dict[int, float], now: dict[int, float]) -> list[Product]:
    return [products[item]._replace(quantity=more) for item, more in cart_changes(before, now)]
