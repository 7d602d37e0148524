"""Money: what was looked at, what lies in the cart."""

from __future__ import annotations

from features.aggregations import largest, latest, total
from features.declare import feature, field
from features.events import ADD_TO_CART, PURCHASE, REMOVE_FROM_CART, VIEW_ITEM

total(
    "price_viewed_sum", "Sum of the known prices of the product pages seen.", of="price", when=VIEW_ITEM, feature=False
)
largest("price_viewed_max", "Highest price seen on a product page.", of="price", when=VIEW_ITEM, unit="currency")
latest(
    "price_viewed_last", "Price on the latest product page.", of="price", dtype="f8", when=VIEW_ITEM, unit="currency"
)


@field("i4")
def priced_views(priced_views: int, name: int, price: float) -> int:
    """Product pages with a known price."""
    return priced_views + (name == VIEW_ITEM and price > 0.0)


@feature(unit="currency")
def price_viewed_mean(price_viewed_sum: float, priced_views: int) -> float:
    """Mean price of the product pages seen: the level the visitor shops at."""
    return price_viewed_sum / max(priced_views, 1)


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
