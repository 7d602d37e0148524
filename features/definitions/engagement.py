"""What happens on the page: scrolling, forms, heartbeats."""

from __future__ import annotations

from features.aggregations import count, largest
from features.declare import feature
from features.events import FORM_START, FORM_SUBMIT, SCROLL, USER_ENGAGEMENT

count("scrolls", "Scroll events: reading on.", when=SCROLL)
largest("scroll_depth_max", "Deepest scroll, as the share of the page that a scroll's or heartbeat's value tells.",
        of="value", when=(SCROLL, USER_ENGAGEMENT), unit="share")  # fmt: skip
count("heartbeats", "Heartbeats: the page was open and in view.", when=USER_ENGAGEMENT)
count("form_starts", "Forms begun: work the visitor is ready to do.", when=FORM_START)
count("form_submits", "Forms sent.", when=FORM_SUBMIT)


@feature
def forms_open(form_starts: int, form_submits: int) -> int:
    """Forms begun and not sent: a place where visits end."""
    return max(form_starts - form_submits, 0)
