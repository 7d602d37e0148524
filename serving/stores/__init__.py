"""Stores of session records: one record under one key, one read, one write.

A store is found by the scheme of its URL in the entry-point group `lotse.stores`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from importlib.metadata import entry_points
from typing import Protocol

from features.settings import SettingsError
from serving.settings import StoreSettings


class Transaction(Protocol):
    """Reads and writes that take effect together, after all that other workers have done."""

    def get(self, key: bytes) -> bytes | memoryview | None:
        """The record, or None."""

    def put(self, key: bytes, record: memoryview) -> None:
        """Keep the record; the bytes are copied before this returns."""

    def delete(self, key: bytes) -> None:
        """Forget the record."""


class Store(Protocol):
    """Where session records live."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """A read-modify-write that is durable against the end of any process once the context is left."""

    def read(self, key: bytes) -> bytes | None:
        """One record as it is now, or None."""

    def records(self, step: int) -> Iterator[list[tuple[bytes, bytes]]]:
        """All keys and records, `step` at a time, for sweeping; records may come and go meanwhile."""

    def count(self) -> int:
        """How many records there are."""

    def close(self) -> None:
        """Let go of files and connections."""


def open_store(settings: StoreSettings) -> Store:
    """The store that the URL names.

    Raises
    ------
    SettingsError
        There is no store for the scheme.
    """
    scheme, _, place = settings.url.partition(":")
    known = {point.name: point for point in entry_points(group="lotse.stores")}
    if scheme not in known:
        raise SettingsError(f"store.url = {settings.url!r}: unknown store {scheme!r}; installed: {', '.join(known)}")
    store: Store = known[scheme].load()(place, settings)
    return store


__all__ = ["Store", "Transaction", "open_store"]
