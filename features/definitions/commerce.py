"""Money: what was looked at, what lies in the cart, how far the checkout got."""

from __future__ import annotations

from features.aggregations import count, largest, latest, since, total
from features.declare import feature, field
from features.events import (
    ADD_PAYMENT_INFO,
    ADD_SHIPPING_INFO,
    ADD_TO_CART,
    BEGIN_CHECKOUT,
    PURCHASE,
    REMOVE_FROM_CART,
    SELECT_PROMOTION,
    VIEW_ITEM,
    VIEW_PROMOTION,
)

total("price_viewed_sum", "Sum of the known prices of product pages.", of="price", when=VIEW_ITEM, feature=False)
largest("price_viewed_max", "Highest price seen on a product page.", of="price", when=VIEW_ITEM, unit="currency")
latest(
    "price_viewed_last", "Price on the latest product page.", of="price", dtype="f8", when=VIEW_ITEM, unit="currency"
)
since("seconds_since_cart", "Since something was put in the cart", when=ADD_TO_CART)
since("seconds_since_checkout", "Since the checkout was last worked on", when=(
    BEGIN_CHECKOUT, ADD_SHIPPING_INFO, ADD_PAYMENT_INFO,
))  # fmt: skip
count(
    "promotion_events", "Promotions seen or followed: somebody who looks for an offer.",
    when=(VIEW_PROMOTION, SELECT_PROMOTION),
)  # fmt: skip
total("revenue", "Value of this session's purchases.", of="value", when=PURCHASE, unit="currency")


@field("i4")
def priced_views(priced_views: int, name: int, price: float) -> int:
    """Product pages with a known price."""
    return priced_views + (name == VIEW_ITEM and price > 0.0)


@field("f8", feature=True, unit="currency")
def price_viewed_min(price_viewed_min: float, name: int, price: float) -> float:
    """Lowest known price on a product page; 0 before the first."""
    if name != VIEW_ITEM or price <= 0.0:
        return price_viewed_min
    return price if price_viewed_min == 0.0 else min(price_viewed_min, price)


@field("i4", feature=True)
def cheaper_views(cheaper_views: int, price_viewed_last: float, name: int, price: float) -> int:
    """Product pages that were cheaper than the one before: looking for a lower price."""
    return cheaper_views + (name == VIEW_ITEM and 0.0 < price < price_viewed_last)


@feature(unit="currency")
def price_viewed_mean(price_viewed_sum: float, priced_views: int) -> float:
    """Mean price of the product pages seen: the level the visitor shops at."""
    return price_viewed_sum / max(priced_views, 1)


@feature(unit="share")
def price_drift(price_viewed_last: float, price_viewed_mean: float) -> float:
    """Latest price over the mean one: moving down to offers or up to the better model; 0 where no price is known."""
    return price_viewed_last / price_viewed_mean if price_viewed_mean > 0.0 else 0.0


@field("f8", feature=True, unit="currency")
def cart_value(cart_value: float, name: int, price: float, quantity: float) -> float:
    """Value of what lies in the cart now: adds less removes, empty after a purchase."""
    if name == ADD_TO_CART:
        return cart_value + price * quantity
    if name == REMOVE_FROM_CART:
        return max(cart_value - price * quantity, 0.0)
    if name == PURCHASE:
        return 0.0
    return cart_value


@field("f8", feature=True)
def cart_units(cart_units: float, name: int, quantity: float) -> float:
    """Units in the cart now: a full cart that idles is the visit worth saving."""
    if name == ADD_TO_CART:
        return cart_units + quantity
    if name == REMOVE_FROM_CART:
        return max(cart_units - quantity, 0.0)
    if name == PURCHASE:
        return 0.0
    return cart_units


@feature
def cart_balance(cart_adds: int, cart_removes: int) -> int:
    """Adds less removes: below zero where an earlier visit's cart is being emptied."""
    return cart_adds - cart_removes


@feature(unit="currency")
def cart_price_mean(cart_value: float, cart_units: float) -> float:
    """Mean price of what lies in the cart."""
    return cart_value / cart_units if cart_units > 0.0 else 0.0


@feature(unit="share")
def price_seen_to_cart(price_viewed_mean: float, cart_price_mean: float) -> float:
    """Mean price looked at over the mean in the cart: above 1 the visitor dreams, below they buy; 0 if unknown."""
    return price_viewed_mean / cart_price_mean if cart_price_mean > 0.0 else 0.0


@field("u1", feature=True, unit="step")
def checkout_step(checkout_step: int, name: int) -> int:
    """Furthest step reached: 1 checkout begun, 2 shipping given, 3 payment given, 4 bought."""
    step = 0
    if name == BEGIN_CHECKOUT:
        step = 1
    elif name == ADD_SHIPPING_INFO:
        step = 2
    elif name == ADD_PAYMENT_INFO:
        step = 3
    elif name == PURCHASE:
        step = 4
    return max(checkout_step, step)
