"""From a log's own values to canonical events: pseudonyms, hashes, codes, money, clocks. Every reader ends here.

In: columns under our names (`features.shop.MAPPABLE`), values as the log has them; None or an empty cell is "missing"
and becomes the column's default. Out: a table with the columns of `features.events.COLUMNS`. A value that cannot be
used is an error that names the file, the row as the file counts it (the first row of data is row 0), the column and
what was expected; with `bad_rows = "skip"` the row is left out and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from features.agents import device_of
from features.channels import Entry, entry_of
from features.errors import EventError
from features.events import CHANNELS, COLUMNS, CONSENTS, DECLARED_SLOTS, DEVICES, EVENT_NAMES, hash64, page_template
from features.sources.reading import Reading

Raw = Mapping[str, pd.Series]
Record = Mapping[str, Any]

_UNIT_TO_MS: Final = {"s": 1_000, "ms": 1, "us": 1, "ns": 1}
_UNIT_PER_MS: Final = {"s": 1, "ms": 1, "us": 1_000, "ns": 1_000_000}
_HASHED: Final = ("session", "id", "item", "category", "campaign")
_NUMBERS: Final = ("price", "quantity", "value", *(f"declared_{slot}" for slot in range(DECLARED_SLOTS)))
# From 1990 to 2100, as `features.events` has it: a clock that was never set, or a unit taken for another.
_TIMES_MS: Final = (631_152_000_000, 4_102_444_799_999)
OUTSIDE: Final = "outside start and end"


def canonical(raw: Raw, reading: Reading, path: object, first_row: int = 0) -> pd.DataFrame:
    """The canonical events of some rows. raw: columns of one length n; returns at most n events, in their order.

    Raises
    ------
    EventError
        A required column is missing, or a row breaks the contract of the event.
    """
    for required in ("visitor", "time", "name"):
        if required not in raw:
            raise EventError(
                f"{path}: nothing is mapped to {required!r}; add it to [sources.<name>.columns] in configs/shop.toml"
            )
    reading.notes.rows += len(raw["time"])
    return _Conversion(raw, reading, str(path), first_row).table()


def from_records(records: Iterable[Record], reading: Reading, path: object) -> Iterator[pd.DataFrame]:
    """Canonical tables from records, one an event: {our column: the log's value}; a missing key or None is missing."""
    remaining, first_row = iter(records), 0
    while part := list(islice(remaining, reading.chunk_rows)):
        names = {name for record in part for name in record} | {"visitor", "time", "name"}
        # objects, so that a missing value stays None and is not taken for a NaN of the log
        raw = {name: pd.Series([record.get(name) for record in part], dtype=object) for name in names}
        yield canonical(raw, reading, path, first_row)
        first_row += len(part)


@dataclass
class _Conversion:
    raw: Raw
    reading: Reading
    path: str
    first_row: int

    def table(self) -> pd.DataFrame:
        raw, settings, shop = self.raw, self.reading.settings, self.reading.shop
        rows = len(raw["time"])
        self.keep = np.ones(rows, bool)
        out: dict[str, np.ndarray] = {"time": self.times(), "name": self.names()}
        self.present("visitor")
        out["visitor"] = self.reading.pseudonyms.visitors(raw["visitor"])
        for name in _HASHED:
            if name in raw:
                out[name] = self.mapped(raw[name], lambda value: hash64(str(value)), 0, np.int64)
        self.entries(out)
        if "page" in raw:
            out["page"] = self.mapped(raw["page"], lambda value: hash64(page_template(str(value))), 0, np.int64)
        if "channel" in raw:
            out["channel"] = self.codes("channel", CHANNELS, settings.channels)
        if "device" in raw:
            out["device"] = self.codes("device", DEVICES, settings.devices)
        elif "user_agent" in raw:
            out["device"] = self.mapped(raw["user_agent"], lambda v: DEVICES.index(device_of(str(v))), 0, np.uint8)
        rate = self.rates()
        for name in _NUMBERS:
            if name in raw:
                numbers = self.numbers(name)
                out[name] = numbers * rate if name in ("price", "value") else numbers
        for name in ("interactive", "consent", "utc_offset"):
            if name in raw:
                out[name] = self.numbers(name)
        out.setdefault("consent", np.full(rows, sum(CONSENTS[name] for name in settings.consent), np.uint8))
        if "utc_offset" not in out:
            out["utc_offset"] = utc_offsets(out["time"], settings.timezone or shop.timezone)
        if "id" not in out and settings.repeated_rows == "drop":
            out["id"] = _row_hashes(out)
        self.within(out["time"])
        table = pd.DataFrame(out, copy=False)
        return table if self.keep.all() else table[self.keep].reset_index(drop=True)

    def refuse(self, column: str, bad: np.ndarray, expected: str, reason: str) -> None:
        """Stop at rows that are `bad`, or leave them out and count them."""
        bad = bad & self.keep
        rows = np.flatnonzero(bad)
        if not rows.size:
            return
        if self.reading.settings.bad_rows == "skip":
            self.reading.notes.skipped[f"{column}: {reason}"] += rows.size
            self.keep &= ~bad
            return
        found = self.raw[column].iloc[rows[0]]
        raise EventError(
            f"{self.path}, row {self.first_row + rows[0]}: {column} is {found!r}; expected {expected} "
            f'({rows.size} such rows here). Mend them, or set bad_rows = "skip" for this source'
        )

    def present(self, column: str) -> None:
        self.refuse(column, self.raw[column].isna().to_numpy(), "a value in every row", "missing")

    def times(self) -> np.ndarray:
        """int64 ms; rows without a usable time get the least one and are no longer kept."""
        values = self.raw["time"]
        self.present("time")
        unit = self.reading.settings.time_unit
        if pd.api.types.is_datetime64_any_dtype(values.dtype) or unit == "iso":
            parsed = pd.to_datetime(values, utc=True, errors="coerce", format=None if _is_time(values) else "ISO8601")
            self.refuse("time", parsed.isna().to_numpy(), "a time like 2026-01-31T12:00:00Z", "no time")
            millis = parsed.fillna(pd.Timestamp(0, tz="UTC")).dt.as_unit("ms").astype("int64").to_numpy()
        else:
            numbers = self.numbers("time", "a whole number of " + unit)
            numbers = np.where(self.keep, numbers, 0)
            if values.dtype.kind in "iu":  # floats hold 53 bits: not enough for nanoseconds
                numbers = values.to_numpy()
            millis = (numbers * _UNIT_TO_MS[unit] // _UNIT_PER_MS[unit]).astype(np.int64)
        outside = (millis < _TIMES_MS[0]) | (millis > _TIMES_MS[1])
        self.refuse("time", outside, f"a time between the years 1990 and 2100, in {unit}", "not between 1990 and 2100")
        return np.where(outside, _TIMES_MS[0], millis)

    def names(self) -> np.ndarray:
        """Event names as codes, u1 (n,)."""
        self.present("name")
        own = {**self.reading.shop.events, **self.reading.settings.events}
        return self.codes("name", EVENT_NAMES, own, what="event", section="events")

    def codes(
        self, column: str, known: tuple[str, ...], own: Mapping[str, str], what: str = "", section: str = ""
    ) -> np.ndarray:
        """Text as positions in `known`, u1 (n,): a name of theirs, by `own`, or one of ours."""
        what = what or column
        values = self.raw[column]
        positions, distinct = pd.factorize(values)
        counts = np.bincount(positions[positions >= 0], minlength=len(distinct))
        settings = self.reading.settings
        custom = (settings.unknown_events or self.reading.shop.unknown_events) == "custom"
        table = np.zeros(len(distinct) + 1, np.uint8)  # the last one is for missing cells
        for place, value in enumerate(distinct):
            name = own.get(str(value), str(value))
            if name in known:
                table[place] = known.index(name)
            elif custom:
                self.reading.notes.unmapped[str(value) if what == "event" else f"{what} {value}"] += int(counts[place])
            else:
                row = self.first_row + int(np.argmax(positions == place))
                raise EventError(
                    f"{self.path}: unknown {what} {str(value)!r} in row {row}; known: {', '.join([*known, *own])}; "
                    f"map it in configs/shop.toml [sources.<name>.{section or what + 's'}], or set "
                    f'unknown_events = "custom"'
                )
        return table[positions]

    def mapped(self, values: pd.Series, change: Callable[[Any], Any], missing: Any, dtype: Any) -> np.ndarray:
        """`change` of each distinct value, once; shape (n,)."""
        positions, distinct = pd.factorize(values)
        table = np.full(len(distinct) + 1, missing, dtype)
        for place, value in enumerate(distinct):
            table[place] = change(value)
        return table[positions]

    def entries(self, out: dict[str, np.ndarray]) -> None:
        """Page, channel and campaign from the address and the referrer, where the log does not say them itself."""
        if "url" not in self.raw and "referrer" not in self.raw:
            return
        empty = pd.Series([""] * len(self.keep), dtype=object)
        urls, referrers = (self.raw.get(name, empty) for name in ("url", "referrer"))
        pairs = [
            ("" if pd.isna(url) else str(url), "" if pd.isna(referrer) else str(referrer))
            for url, referrer in zip(urls, referrers, strict=True)
        ]
        known: dict[Hashable, Entry] = {}
        found = [known.get(pair) or known.setdefault(pair, entry_of(*pair)) for pair in pairs]
        out.setdefault("channel", np.array([CHANNELS.index(entry.channel) for entry in found], np.uint8))
        out.setdefault("campaign", np.array([hash64(entry.campaign) for entry in found], np.int64))
        if "url" in self.raw:
            out.setdefault("page", self.mapped(self.raw["url"], lambda v: hash64(page_template(str(v))), 0, np.int64))

    def numbers(self, column: str, expected: str = "") -> np.ndarray:
        """float64 (n,); missing cells at the column's default."""
        values = self.raw[column]
        default = COLUMNS[column].default
        if pd.api.types.is_bool_dtype(values.dtype):
            values = values.astype("int8[pyarrow]" if isinstance(values.dtype, pd.ArrowDtype) else "int8")
        missing = values.isna().to_numpy()
        if not pd.api.types.is_numeric_dtype(values.dtype):
            parsed = pd.to_numeric(values.astype(object).where(~missing, None), errors="coerce")
            self.refuse(column, parsed.isna().to_numpy() & ~missing, expected or "a number", "not a number")
            values = parsed
        numbers = np.where(missing, default, values.to_numpy(dtype=np.float64, na_value=np.nan))
        finite = expected or "a finite number, or an empty cell for unknown"
        self.refuse(column, ~np.isfinite(numbers), finite, "not finite")
        if column in ("price", "quantity", "value"):
            self.refuse(column, numbers < 0, "a finite number, 0 or more", "negative")
        return np.where(self.keep, numbers, default)

    def rates(self) -> np.ndarray | float:
        if "currency" not in self.raw:
            return 1.0
        positions, distinct = pd.factorize(self.raw["currency"])
        table = np.ones(len(distinct) + 1)
        for place, name in enumerate(distinct):
            try:
                table[place] = self.reading.shop.rate(str(name))
            except ValueError as error:
                self.refuse("currency", positions == place, f"a known currency: {error}", "no rate")
        return table[positions]

    def within(self, time: np.ndarray) -> None:
        """Keep what lies between the configured start and end: logs carry rows of days that they do not cover."""
        settings = self.reading.settings
        inside = np.ones(len(time), bool)
        if settings.start:
            inside &= time >= pd.Timestamp(settings.start).timestamp() * 1000
        if settings.end:
            inside &= time < pd.Timestamp(settings.end).timestamp() * 1000
        outside = int((self.keep & ~inside).sum())
        if outside:
            self.reading.notes.skipped[OUTSIDE] += outside
            self.keep &= inside


def _is_time(values: pd.Series) -> bool:
    return pd.api.types.is_datetime64_any_dtype(values.dtype)


def utc_offsets(time_ms: np.ndarray, timezone: str) -> np.ndarray:
    """Minutes ahead of UTC at each time, by the zone's own rules (daylight saving included). int64 -> int32 (n,)."""
    zone = ZoneInfo(timezone)
    quarters, positions = np.unique(time_ms // 900_000, return_inverse=True)  # zones change on quarters of an hour
    stamps = pd.to_datetime(quarters * 900_000, unit="ms", utc=True)
    local = stamps.tz_convert(zone).tz_localize(None)
    offsets = ((local - stamps.tz_localize(None)) // pd.Timedelta(minutes=1)).to_numpy(np.int32)
    return offsets[positions]


def _row_hashes(out: dict[str, np.ndarray]) -> np.ndarray:
    """An id of each row's content, int64 (n,), so that the fold itself drops rows that stand in the log twice."""
    hashed = pd.util.hash_pandas_object(pd.DataFrame(out), index=False).to_numpy(np.uint64)
    return np.maximum(hashed >> np.uint64(1), 1).astype(np.int64)
