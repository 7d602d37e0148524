"""Who is told what by the service, from its configuration: the recipients of the record of processing activities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.outbound import targets
from serving.outbound.configuration import place_of

if TYPE_CHECKING:
    from serving.settings import ServingSettings

NOBODY = "nobody; handed-on sessions lie in files of the operator's"


def recipients(settings: ServingSettings) -> list[str]:
    """A line for each; that there is nobody, if so."""
    found = []
    for tracker, original in settings.collect.forward.items():
        whose = "all visitors" if settings.forward.objected else "visitors who do not object (GPC, DNT, an opt-out)"
        found.append(f"{place_of(original)}: requests of {tracker} as they came, with addresses; of {whose}")
    identify = settings.collect.options.get("segment", {}).get("identify")
    if identify and "segment" in settings.collect.trackers:
        endpoint = place_of(identify.get("endpoint", "https://api.segment.io"))
        found.append(f"{endpoint}: scores and Segment's own id of the visitor; with consent to personalise")
    for name, target in targets(settings.outbound, opened=False).items():
        found.append(
            f"{target.where} ({name}): {target.told}; with consent to personalise, not of visitors who object (GPC, "
            "DNT, to automated decisions)"
        )
    return found or [NOBODY]
