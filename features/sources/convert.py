"""From a log's own values to canonical events: pseudonyms, hashes, codes, money, clocks. Every reader ends here.

In: columns under our names (`features.shop.MAPPABLE`), values as the log has them; None or an empty cell is "missing"
and becomes the column's default. Out: a table with the columns of `features.events.COLUMNS`. A value that cannot be
used is an error that names the file, the row as the file counts it (the first row of data is row 0), the column and
what was expected; with `bad_rows = "skip"` the row is left out and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from features.agents import device_of
from features.channels import Entry, entry_of
from features.errors import EventError
from features.events import (
    CHANNELS,
    COLUMNS,
    CONSENTS,
    DECLARED_SLOTS,
    DEVICES,
    EVENT_NAMES,
    hash64,
    interactive_by_default,
    page_template,
)
from features.sources.reading import Reading

Raw = Mapping[str, pd.Series]
Record = Mapping[str, Any]

_NS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_HASHED: Final = ("session", "id", "item", "category", "campaign")
_NUMBERS: Final = ("price", "quantity", "value", *(f"declared_{slot}" for slot in range(DECLARED_SLOTS)))
# From 1990 to 2100, as `features.events` has it: a clock that was never set, or a unit taken for another.
_TIMES_MS: Final = (631_152_000_000, 4_102_444_799_999)
OUTSIDE: Final = "outside start and end"


def canonical(
    raw: Raw, reading: Reading, path: object, first_row: int = 0, rows: Sequence[int] | None = None
) -> pd.DataFrame:
    """The canonical events of some rows. raw: columns of one length n; returns at most n events, in their order.

    first_row: the file's number of the first row, for messages; rows: of each one, where they do not follow each other.

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
    numbers = range(first_row, first_row + len(raw["time"])) if rows is None else rows
    return _Conversion(raw, reading, str(path), numbers).table()


def from_records(records: Iterable[Record], reading: Reading, path: object) -> Iterator[pd.DataFrame]:
    """Canonical tables from records, one an event: {our column: the log's value}; a missing key or None is missing.

    A record may say its `row` in the file, for messages, where rows and events are not one to one.
    """
    remaining, first_row = iter(records), 0
    while part := list(islice(remaining, reading.chunk_rows)):
        names = ({name for record in part for name in record} | {"visitor", "time", "name"}) - {"row"}
        # objects, so that a missing value stays None and is not taken for a NaN of the log
        raw = {name: pd.Series([record.get(name) for record in part], dtype=object) for name in names}
        rows = [record.get("row", first_row + place) for place, record in enumerate(part)]
        yield canonical(raw, reading, path, rows=rows)
        first_row += len(part)


@dataclass
class _Conversion:
    raw: Raw
    reading: Reading
    path: str
    rows: Sequence[int]  # as the file counts them

    def table(self) -> pd.DataFrame:
        raw, settings, shop = self.raw, self.reading.settings, self.reading.shop
        rows = len(raw["time"])
        self.keep = np.ones(rows, bool)
        out: dict[str, np.ndarray] = {"time": self.times(), "name": self.names()}
        self.present("visitor")
        pseudonym = self.reading.pseudonyms.visitor
        out["visitor"] = self.mapped(raw["visitor"], lambda value: pseudonym(_text(value)), 0, np.int64)
        for name in _HASHED:
            if name in raw:
                out[name] = self.mapped(raw[name], lambda value: hash64(_text(value)), 0, np.int64)
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
        usual = {
            "interactive": interactive_by_default(out["name"]),
            "consent": np.full(rows, sum(CONSENTS[name] for name in settings.consent), np.uint8),
            "utc_offset": utc_offsets(out["time"], settings.timezone or shop.timezone),
        }
        for name, values in usual.items():
            # an empty cell says no more than a column that is not there
            out[name] = np.where(raw[name].isna(), values, self.numbers(name)) if name in raw else values
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
            f"{self.path}, row {self.rows[rows[0]]}: {column} is {found!r}; expected {expected} "
            f'({rows.size} such rows here). Mend them, or set bad_rows = "skip" for this source'
        )

    def present(self, column: str) -> None:
        self.refuse(column, self.raw[column].isna().to_numpy(), "a value in every row", "missing")

    def times(self) -> np.ndarray:
        """int64 ms; rows without a usable time get the least one and are no longer kept."""
        values = self.raw["time"]
        self.present("time")
        unit = self.reading.settings.time_unit
        if _is_time(values) or unit == "iso":
            parsed = _parsed(values)
            self.refuse("time", parsed.isna().to_numpy(), "a time like 2026-01-31T12:00:00Z", "no time")
            millis = parsed.fillna(pd.Timestamp(0, tz="UTC")).dt.as_unit("ms").astype("int64").to_numpy()
        else:
            numbers = self.numbers("time", "a whole number of " + unit)
            if values.dtype.kind in "iu" and not values.hasnans:
                # whole numbers stay whole: a float holds 53 bits, too few for nanoseconds
                per_ms, ms_per = max(1_000_000 // _NS[unit], 1), max(_NS[unit] // 1_000_000, 1)
                millis = values.to_numpy(np.int64) * ms_per // per_ms
            else:
                # to the nearest microsecond first: 1396437466.94 s is a little less in binary
                micros = np.rint(np.clip(np.where(self.keep, numbers, 0), 0, 9e18) * (_NS[unit] / 1000))
                millis = (np.minimum(micros, 1e18) // 1000).astype(np.int64)
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
            text = _text(value)
            name = own.get(text, text)
            if name in known:
                table[place] = known.index(name)
            elif custom:
                self.reading.notes.unmapped[text if what == "event" else f"{what} {text}"] += int(counts[place])
            else:
                row = self.rows[int(np.argmax(positions == place))]
                raise EventError(
                    f"{self.path}: unknown {what} {text!r} in row {row}; known: {', '.join([*known, *own])}; "
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


def _parsed(values: pd.Series) -> pd.Series:
    """Times of a column of times, or of text in ISO 8601; what is none becomes NaT."""
    if _is_time(values):
        return pd.to_datetime(values, utc=True)
    parsed = pd.to_datetime(values, utc=True, errors="coerce", format="ISO8601")
    other = parsed.isna() & values.notna()
    if other.any():  # SQL's way to write it: "2019-11-01 00:00:00 UTC"
        text = values[other].astype(str).str.removesuffix(" UTC")
        parsed = parsed.where(~other, pd.to_datetime(text, utc=True, errors="coerce", format="ISO8601"))
    return parsed


def _text(value: Any) -> str:
    """A value as text. 1532.0 is the id 1532 from a column of whole numbers some of which are missing."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


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
