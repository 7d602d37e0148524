"""One call of Segment, as the archive or a warehouse keeps it, as records of events.

In: an object of the archive or a row of a table. Out: its records, as `features.segment` makes them of a call.

The visitor is `anonymousId`; `userId` with consent to link, by the call's preferences or, where it has none, by the
source's `consent`. `timestamp` is taken, which Segment has corrected for the client's clock, else the time of receipt.
Products that are no JSON (a warehouse may cut text) are counted; the event has none then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from features.events import CONSENT_LINK, CONSENTS
from features.segment import NO_STEP, NOT_LINKED, STEPS, WITHHELD, Calls, Row, first, is_withheld, visitor_of
from features.sources.reading import Reading

REPEATED: Final = "tracks: the event has its own table"
# Tables of calls that are no step of a visitor, and of what Segment gathers from them.
NO_EVENTS: Final = frozenset({"identifies", "users", "groups", "accounts", "aliases"})
CONSENT_COLUMN: Final = "context_consent_category_preferences_"


class ArchivedCalls:
    """From calls to records of events, by the settings of one reading.

    categories: what each of the shop's consent categories grants. with_table: the events that have their own table.
    """

    def __init__(self, reading: Reading, categories: Mapping[str, Sequence[str]]) -> None:
        self._notes = reading.notes
        self.with_table: set[str] = set()
        self._calls = Calls({**reading.shop.events, **reading.settings.events}, categories, self._note)
        self._consent = sum(CONSENTS[name] for name in reading.settings.consent)

    def of_archive(self, call: Row) -> list[Row]:
        """The events of a call as the archive keeps it."""
        kind = call.get("type")
        if kind not in (*STEPS, None):
            return self._left_out(f"{kind}: {NO_STEP}")
        if is_withheld(call):
            return self._left_out(WITHHELD)
        consent = self._calls.consent_of_call(call)
        visitor, account = self._visitor(first(call, "anonymousId"), first(call, "userId"), consent)
        if visitor is None and account is not None:
            return self._left_out(NOT_LINKED)
        return self._calls.of_call(call, visitor, consent)

    def of_row(self, table: str, cells: Row) -> list[Row]:
        """The events of a row of a warehouse's table."""
        if table in NO_EVENTS:
            return self._left_out(f"{table}: {NO_STEP}")
        if table == "tracks" and cells.get("event") in self.with_table:
            return self._left_out(REPEATED)
        consent = self._calls.consent(
            {
                column.removeprefix(CONSENT_COLUMN): value
                for column, value in cells.items()
                # a float column has NaN where it has nothing
                if column.startswith(CONSENT_COLUMN) and first(cells, column) is not None
            }
        )
        visitor, account = self._visitor(first(cells, "anonymous_id"), first(cells, "user_id"), consent)
        if visitor is None and account is not None:
            return self._left_out(NOT_LINKED)
        kind = {"pages": "page", "screens": "screen"}.get(table)
        # of another table these are the product's
        name, url = (first(cells, "name"), first(cells, "url", "path")) if kind else (None, None)
        url = first(cells, "context_page_url", "context_page_path") or url
        return self._calls.events(
            {
                "name": kind or first(cells, "event_text", "event") or table,
                "visitor": visitor,
                "consent": consent,
                "time": first(cells, "timestamp", "received_at"),
                "id": first(cells, "id"),
                "page": name or url if kind == "screen" else url or name,
                "url": url,
                "referrer": first(cells, "context_page_referrer", *(("referrer",) if kind else ())),
                "user_agent": first(cells, "context_user_agent"),
                "zone": first(cells, "context_timezone"),
            },
            campaign={key: cells.get(f"context_campaign_{key}") for key in ("source", "medium", "name")},
            properties={} if kind else cells,
        )

    def _visitor(self, anonymous_id: Any, user_id: Any, consent: int | None) -> tuple[Any, Any]:
        """Whose call it is, None if it may not be told; and the account."""
        linked = (self._consent if consent is None else consent) & CONSENT_LINK != 0
        return visitor_of(anonymous_id, user_id, linked=linked), user_id

    def _left_out(self, reason: str) -> list[Row]:
        self._notes.skipped[reason] += 1
        return []

    def _note(self, what: str) -> None:
        self._notes.unmapped[what] += 1
