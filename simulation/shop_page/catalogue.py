"""What the shop's pages have to know: products, and what scores and features are called.

Out: one document, `shop.json`. Nothing in it is of a visitor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from features.definitions import CATALOGUE
from features.events import CHANNELS, DEVICES, EVENT_NAMES, PAGE_KINDS
from simulation.shop import CATEGORIES, products

CURRENCY: Final = "EUR"
# Products are called after places on the coasts that pilots know: a name for each number within a category.
PLACES: Final = (
    "Amrum", "Borkum", "Föhr", "Juist", "Sylt", "Pellworm", "Norderney", "Langeoog", "Spiekeroog", "Wangerooge",
    "Baltrum", "Neuwerk", "Trischen", "Helgoland", "Husum", "Tönning", "Büsum", "Brunsbüttel", "Glückstadt", "Stade",
    "Blankenese", "Finkenwerder", "Cuxhaven", "Wilhelmshaven", "Emden", "Leer", "Papenburg", "Texel", "Vlieland",
    "Terschelling", "Ameland", "Esbjerg", "Fanø", "Rømø", "Skagen", "Læsø", "Anholt", "Samsø", "Ærø", "Fehmarn", "Poel",
    "Rügen", "Hiddensee", "Usedom", "Wismar", "Warnemünde", "Stralsund", "Sassnitz", "Bornholm", "Møn", "Ystad",
    "Visby", "Åland", "Hanko", "Kiel", "Eckernförde", "Kappeln", "Schleimünde", "Flensburg", "Laboe",
)  # fmt: skip
# Features whose number is a place in a list, by their unit.
_CODES: Final[Mapping[str, tuple[str, ...]]] = {
    "event code": EVENT_NAMES,
    "channel code": CHANNELS,
    "device code": DEVICES,
    "page kind code": PAGE_KINDS,
}


def shop_document(collector: str, thresholds: Mapping[str, float]) -> dict[str, Any]:
    """collector: address of the service; thresholds: the scores above which the shop offers help, by head."""
    sold = [
        {"item": one.item, "category": one.category, "name": PLACES[place % len(PLACES)], "price": one.price}
        for place, one in enumerate(products())
    ]
    return {
        "collector": collector,
        "currency": CURRENCY,
        "categories": CATEGORIES,
        "items": sold,
        "thresholds": dict(thresholds),
        "features": {
            name: {"meaning": " ".join(feature.doc.split()), "unit": feature.unit}
            for name, feature in CATALOGUE.features.items()
        },
        "codes": _CODES,
    }
