"""A request's body in, its events out: all of them, or what is wrong with each that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from features.shop import ShopSettings
from serving.consent import OBJECTED
from serving.intake import ANY, EventIn, FieldError, HashedItem, Intake, check_bounds
from serving.problems import Problem
from serving.pseudonyms import RotatingPseudonyms
from serving.requests import Request
from serving.settings import ServingSettings


class TooManyError(Problem):
    """More events in one request than are taken."""

    def __init__(self, events: int, limit: int) -> None:
        super().__init__(422, f"{events} events in one request; at most {limit}: send them in several")


class Reader:
    """Reads bodies."""

    def __init__(self, settings: ServingSettings, shop: ShopSettings, pseudonyms: RotatingPseudonyms) -> None:
        self.intake = Intake(shop, settings.session.consent, round(settings.session.max_age_hours * 3_600_000))
        self._pseudonyms, self._server = pseudonyms, settings.server

    def read(self, request: Request, received_ms: int) -> None:
        """The events of a request, and the ids of their visitors as the tracker gave them.

        Raises
        ------
        Problem
            The body cannot be read, is too long, or holds a bad event: 400 or 422.
        """
        if request.wires is not None:
            self._read_wires(request, request.wires, received_ms)
            return
        try:
            wires, request.many = self.intake.split(request.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Problem(400, f"the body is not JSON: {error}") from None
        except RecursionError:
            raise Problem(400, "the body is nested too deeply for an event") from None
        limit = self._server.explain_limit if request.explained else self._server.batch_limit
        if len(wires) > limit:
            raise TooManyError(len(wires), limit)
        take, pseudonym = self.intake.event, self._pseudonyms.at(received_ms)
        allowed = OBJECTED if request.objected else ANY
        try:
            events = [take(wire, received_ms, pseudonym, allowed) for wire in wires]
        except (FieldError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise self._problem(wires, received_ms, pseudonym, many=request.many) from None
        request.events = events
        request.raws = [wire.visitor for wire in wires if isinstance(wire, EventIn)]

    def _read_wires(self, request: Request, wires: Sequence[EventIn], received_ms: int) -> None:
        """The events that an adapter made; those that break the contract are left out.

        Making an event in Python checks none of its bounds, and an adapter passes on what anybody has sent.

        Raises
        ------
        TooManyError
            There are too many of them; then none is taken.
        """
        count = max(len(wires), len(request.unlinked))
        if count > self._server.batch_limit:
            raise TooManyError(count, self._server.batch_limit)
        take, pseudonym = self.intake.event, self._pseudonyms.at(received_ms)
        request.many = True
        whos = []
        for place, wire in enumerate(wires):
            try:
                check_bounds(wire)
                event = take(wire, received_ms, pseudonym)
            except FieldError as error:
                request.dropped.append(f"bad {error.field}")
            except (TypeError, ValueError, OverflowError):
                request.dropped.append("bad event")  # another type, or half a character, which has no bytes
            else:
                if isinstance(wire, HashedItem):
                    event = event._replace(item=wire.item_hash, category=wire.category_hash)
                request.events.append(event)
                request.raws.append(wire.visitor)
                if request.whos:
                    whos.append(request.whos[place])
        request.whos = whos

    def _problem(
        self, wires: Sequence[Any], received_ms: int, pseudonym: Callable[[str, bool], int], *, many: bool
    ) -> Problem:
        """What is wrong with every bad event."""
        errors = []
        for index, wire in enumerate(wires):
            try:
                self.intake.event(wire, received_ms, pseudonym)
            except FieldError as error:
                errors.append({"index": index, "field": error.field, "found": error.found, "expected": error.expected})
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                if not many:
                    return Problem(400, f"the body is not JSON: {error}")
                errors.append({"index": index, "field": "event", "found": "no JSON object", "expected": str(error)})
        first = errors[0]
        return Problem(
            422,
            f"event {first['index']}, field {first['field']}: found {first['found']}, expected {first['expected']}",
            errors=errors,
        )
