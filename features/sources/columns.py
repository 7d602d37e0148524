"""Any CSV or Parquet log with a row an event, its columns mapped in configs/shop.toml.

In: a file and its `[sources.<name>]` section. Out: the canonical events table. Empty cells become the column's default;
a cell that says NaN, a time that is none, an unknown event name or a negative number is an error that names the row as
the file counts it (the first row of data is row 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from features.errors import EventError
from features.events import (
    CHANNELS,
    COLUMNS,
    CONSENTS,
    DEVICES,
    EVENT_NAMES,
    check_events,
    hash64,
    page_template,
)
from features.pseudonyms import Pseudonymiser
from features.shop import ShopSettings, SourceSettings

_UNIT_TO_MS: Final = {"s": 1_000, "ms": 1, "us": 1, "ns": 1}
_UNIT_PER_MS: Final = {"s": 1, "ms": 1, "us": 1_000, "ns": 1_000_000}
_HASHED: Final = ("session", "id", "item", "category", "campaign")


def read(path: Path, settings: SourceSettings, shop: ShopSettings, pseudonyms: Pseudonymiser) -> pd.DataFrame:
    """The canonical events of the file.

    Raises
    ------
    EventError
        A mapped column is missing, or a row breaks the contract of the event.
    """
    table = _load(path, settings)
    raw = {ours: _column(table, theirs, ours, path) for ours, theirs in settings.columns.items()}
    for required in ("visitor", "time", "name"):
        if required not in raw:
            raise EventError(
                f"{path}: nothing is mapped to {required!r}; add it to [sources.<name>.columns] in shop.toml"
            )
    out: dict[str, np.ndarray] = {
        "visitor": pseudonyms.visitors(_present(raw["visitor"], "visitor")),
        "time": _times(raw["time"], settings),
        "name": _codes(raw["name"], _event_codes(settings, shop), "event", "map it in configs/shop.toml [events]"),
    }
    for name in _HASHED:
        if name in raw:
            out[name] = _hashes(raw[name])
    if "page" in raw:
        out["page"] = _hashes(_mapped_text(raw["page"], page_template))
    if "channel" in raw:
        out["channel"] = _codes(raw["channel"], {name: i for i, name in enumerate(CHANNELS)}, "channel", "map it")
    if "device" in raw:
        out["device"] = _codes(raw["device"], {name: i for i, name in enumerate(DEVICES)}, "device", "map it")
    rate = _rates(raw.get("currency"), shop)
    for name in ("price", "quantity", "value", "interactive", "declared_0", "declared_1", "declared_2", "declared_3"):
        if name in raw:
            numbers = _numbers(raw[name], name)
            out[name] = numbers * rate if name in ("price", "value") else numbers
    out["consent"] = np.full(len(table), sum(CONSENTS[name] for name in settings.consent), np.uint8)
    out["utc_offset"] = _utc_offsets(out["time"], settings.timezone or shop.timezone)
    return _within(check_events(pd.DataFrame(out)), settings)


def _load(path: Path, settings: SourceSettings) -> pa.Table:
    wanted = sorted(set(settings.columns.values()))
    try:
        if path.suffix == ".parquet":
            return pa.parquet.read_table(path, columns=[c for c in wanted if c in pa.parquet.read_schema(path).names])
        # only an empty cell is missing: a "NaN" or "null" in a file is a mistake of the export that should be seen
        convert = pa.csv.ConvertOptions(null_values=[""], strings_can_be_null=True)
        return pa.csv.read_csv(
            path, parse_options=pa.csv.ParseOptions(delimiter=settings.separator), convert_options=convert
        )
    except (pa.ArrowException, OSError) as error:
        raise EventError(f"{path} cannot be read: {error}") from None


def _column(table: pa.Table, theirs: str, ours: str, path: Path) -> pd.Series:
    if theirs not in table.column_names:
        raise EventError(
            f"{path} has no column {theirs!r}, which [sources.<name>.columns] maps to {ours!r}; "
            f"found: {', '.join(table.column_names)}"
        )
    # Arrow types keep "missing" and NaN apart, which numpy's floats cannot
    return table[theirs].to_pandas(types_mapper=pd.ArrowDtype)  # type: ignore[no-any-return]


def _refuse(column: str, values: pd.Series, bad: np.ndarray, expected: str) -> None:
    rows = np.flatnonzero(bad)
    if rows.size:
        raise EventError(
            f"row {rows[0]}: {column} is {values.iloc[rows[0]]!r}; expected {expected} ({rows.size} such rows)"
        )


def _present(values: pd.Series, name: str) -> pd.Series:
    _refuse(name, values, values.isna().to_numpy(), "a value in every row")
    return values


def _times(values: pd.Series, settings: SourceSettings) -> np.ndarray:
    _present(values, "time")
    unit = settings.time_unit
    if unit == "iso" or not pd.api.types.is_numeric_dtype(values.dtype):
        parsed = pd.to_datetime(values, utc=True, errors="coerce", format="ISO8601")
        _refuse("time", values, parsed.isna().to_numpy(), "a time like 2026-01-31T12:00:00Z")
        return parsed.to_numpy(dtype="datetime64[ms]").astype(np.int64)
    numbers = values.to_numpy()
    return numbers.astype(np.int64) * _UNIT_TO_MS[unit] // _UNIT_PER_MS[unit]


def _event_codes(settings: SourceSettings, shop: ShopSettings) -> Mapping[str, int]:
    own = {**shop.events, **settings.events}
    codes = {name: code for code, name in enumerate(EVENT_NAMES)} | {
        theirs: EVENT_NAMES.index(ours) for theirs, ours in own.items()
    }
    if (settings.unknown_events or shop.unknown_events) == "custom":
        return _Custom(codes)
    return codes


class _Custom(dict[str, int]):
    """Every other name is a custom event."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> int:
        return 0


def _codes(values: pd.Series, codes: Mapping[str, int], what: str, advice: str) -> np.ndarray:
    positions, distinct = pd.factorize(values)
    table = np.zeros(len(distinct) + 1, np.uint8)  # the last one is for missing cells
    for place, value in enumerate(distinct):
        if str(value) not in codes:
            row = int(np.argmax(positions == place))
            raise EventError(f"unknown {what} {str(value)!r} in row {row}; known: {', '.join(codes)}; {advice}")
        table[place] = codes[str(value)]
    if what == "event":
        _present(values, "name")
    return table[positions]


def _hashes(values: pd.Series) -> np.ndarray:
    positions, distinct = pd.factorize(values)
    table = np.zeros(len(distinct) + 1, np.int64)
    table[:-1] = [hash64(str(value)) for value in distinct]
    return table[positions]


def _mapped_text(values: pd.Series, change: object) -> pd.Series:
    assert callable(change)
    positions, distinct = pd.factorize(values)
    changed = np.array([*(change(str(value)) for value in distinct), ""], object)
    return pd.Series(changed[positions])


def _numbers(values: pd.Series, name: str) -> np.ndarray:
    if pd.api.types.is_bool_dtype(values.dtype):
        values = values.astype("int8[pyarrow]")
    if not pd.api.types.is_numeric_dtype(values.dtype):
        parsed = pd.to_numeric(values.astype(object).where(values.notna(), None), errors="coerce")
        _refuse(name, values, (parsed.isna() & values.notna()).to_numpy(), "a number")
        values = parsed
    missing = values.isna().to_numpy()
    numbers = values.to_numpy(dtype=np.float64, na_value=COLUMNS[name].default)
    _refuse(name, values, np.isnan(numbers) & ~missing, "a finite number, or an empty cell for unknown")
    return numbers


def _rates(currency: pd.Series | None, shop: ShopSettings) -> np.ndarray | float:
    if currency is None:
        return 1.0
    positions, distinct = pd.factorize(currency)
    table = np.ones(len(distinct) + 1)
    for place, name in enumerate(distinct):
        try:
            table[place] = shop.rate(str(name))
        except ValueError as error:
            raise EventError(f"row {int(np.argmax(positions == place))}: {error}") from None
    return table[positions]


def _utc_offsets(time_ms: np.ndarray, timezone: str) -> np.ndarray:
    """Minutes ahead of UTC at each time, by the zone's own rules (daylight saving included)."""
    zone = ZoneInfo(timezone)
    hours, positions = np.unique(time_ms // 3_600_000, return_inverse=True)  # a zone changes on the hour
    stamps = pd.to_datetime(hours * 3_600_000, unit="ms", utc=True)
    local = stamps.tz_convert(zone).tz_localize(None)
    offsets = ((local - stamps.tz_localize(None)) // pd.Timedelta(minutes=1)).to_numpy(np.int32)
    return offsets[positions]


def _within(events: pd.DataFrame, settings: SourceSettings) -> pd.DataFrame:
    """The events between the configured `start` and `end`: logs carry some from days that they do not cover."""
    time = events["time"].to_numpy()
    keep = np.ones(len(events), bool)
    if settings.start:
        keep &= time >= pd.Timestamp(settings.start).timestamp() * 1000
    if settings.end:
        keep &= time < pd.Timestamp(settings.end).timestamp() * 1000
    return events if keep.all() else events[keep].reset_index(drop=True)
