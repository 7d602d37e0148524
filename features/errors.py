"""Errors that a user can mend, apart from the modules that raise them, so that the command line need not load those."""

from __future__ import annotations


class EventError(ValueError):
    """Bad events: the message names the row, the field, what was found and what is expected."""
