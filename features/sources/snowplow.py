"""Enriched events of a Snowplow pipeline: files, atomic tables and the output of the analytics SDKs.

In: the enriched TSV as Enrich and the S3 loader write it (131 columns in a fixed order, no heading), a CSV of
`atomic.events` with a heading, JSON lines or Parquet with the atomic columns and a column a schema
(`contexts_<vendor>_<name>_1`, `unstruct_event_<vendor>_<name>_1`); each text form may be compressed. Out: canonical
events. An empty cell or an absent column is missing; an event without any id of a visitor or session is left out.
"""

from __future__ import annotations

import csv
import datetime
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Final

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from features.channels import Entry, entry_of
from features.errors import EventError
from features.shop import SourceSettings
from features.sources.convert import from_records
from features.sources.reading import Reading
from features.trackers.snowplow import (
    CHANNELS,
    DEVICES,
    ENTITIES,
    EVENTS,
    QUARTER_SECONDS,
    TOLD,
    Rules,
    SnowplowEvent,
    SnowplowOptions,
    add_entities,
    self_described,
    snake,
    utc_offset,
)

# The order of the enriched TSV, which never changes (atomic.events has the same without the three JSON columns).
_ORDER: Final = """
    app_id platform etl_tstamp collector_tstamp dvce_created_tstamp event event_id txn_id name_tracker v_tracker
    v_collector v_etl user_id user_ipaddress user_fingerprint domain_userid domain_sessionidx network_userid
    geo_country geo_region geo_city geo_zipcode geo_latitude geo_longitude geo_region_name ip_isp ip_organization
    ip_domain ip_netspeed page_url page_title page_referrer page_urlscheme page_urlhost page_urlport page_urlpath
    page_urlquery page_urlfragment refr_urlscheme refr_urlhost refr_urlport refr_urlpath refr_urlquery
    refr_urlfragment refr_medium refr_source refr_term mkt_medium mkt_source mkt_term mkt_content mkt_campaign
    contexts se_category se_action se_label se_property se_value unstruct_event tr_orderid tr_affiliation tr_total
    tr_tax tr_shipping tr_city tr_state tr_country ti_orderid ti_sku ti_name ti_category ti_price ti_quantity
    pp_xoffset_min pp_xoffset_max pp_yoffset_min pp_yoffset_max useragent br_name br_family br_version br_type
    br_renderengine br_lang br_features_pdf br_features_flash br_features_java br_features_director
    br_features_quicktime br_features_realplayer br_features_windowsmedia br_features_gears br_features_silverlight
    br_cookies br_colordepth br_viewwidth br_viewheight os_name os_family os_manufacturer os_timezone dvce_type
    dvce_ismobile dvce_screenwidth dvce_screenheight doc_charset doc_width doc_height tr_currency tr_total_base
    tr_tax_base tr_shipping_base ti_currency ti_price_base base_currency geo_timezone mkt_clickid mkt_network etl_tags
    dvce_sent_tstamp refr_domain_userid refr_dvce_tstamp derived_contexts domain_sessionid derived_tstamp event_vendor
    event_name event_format event_version event_fingerprint true_tstamp
"""
COLUMNS: Final = tuple(_ORDER.split())

DEFAULTS: Final = SourceSettings(
    events=EVENTS,
    channels=CHANNELS,
    devices=DEVICES,
    time_unit="iso",
    unknown_events="custom",
)

NO_VISITOR: Final = "no id of a visitor or session"
OTHER_APP: Final = "another app_id"
_VERSION: Final = re.compile(r"_\d+(_\d+_\d+)?$")


def read(reading: Reading) -> Iterator[pd.DataFrame]:
    """The canonical events of the files.

    Raises
    ------
    EventError
        A file has none of the known forms, or a row breaks the contract of the event.
    """
    apps = frozenset(reading.options(SnowplowOptions).app_ids)
    rules = Rules({**reading.shop.events, **reading.settings.events}, reading.settings.devices, {}, _entry)
    for path in reading.files():
        records = _records(path, reading, apps, rules)
        yield from from_records(records, reading, path)


def _records(path: Path, reading: Reading, apps: frozenset[str], rules: Rules) -> Iterator[dict[str, Any]]:
    """Records for `from_records`, one an event of ours, in the order of the file."""
    for row, event in reading.sound(_rows(path, reading), path, "no enriched event"):
        events: list[dict[str, Any]] = []
        if apps and event.get("app_id") not in apps:
            reading.notes.skipped[OTHER_APP] += 1
        elif not (found := SnowplowEvent(event, rules)).visitor:
            reading.notes.skipped[NO_VISITOR] += 1
        else:
            time = event.get("derived_tstamp") or event.get("collector_tstamp")
            events = found.events(time=time, utc_offset=_utc_offset(event, time))
        reading.notes.rows += 1 - len(events)  # a row of the log may be several events, which are counted later on
        for record in events:
            yield {**record, "row": row}


def _rows(path: Path, reading: Reading) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(row, atomic columns with their entities), or (row, what is wrong with it)."""
    if path.suffix == ".parquet":
        yield from _parquet(path, reading)
        return
    lines = reading.lines(path)
    first = next(lines, b"")
    if first.startswith(b"{"):
        for row, line in enumerate(chain([first], lines)):
            if line.strip():
                yield row, _json(line)
    elif b"\t" in first and b"event_id" not in first.split(b"\t"):
        for row, line in enumerate(chain([first], lines)):
            cells = line.decode(errors="replace").split("\t")
            if line.strip():
                yield row, _tabular(COLUMNS, cells)
    elif first:
        yield from _csv(path, first, lines)


def _csv(path: Path, first: bytes, lines: Iterator[bytes]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    text = (line.decode(errors="replace") + "\n" for line in chain([first], lines))
    rows = csv.reader(text, delimiter="\t" if b"\t" in first else ",")
    try:
        columns = tuple(name.lower() for name in next(rows))
        if "event_id" not in columns or "collector_tstamp" not in columns:
            raise EventError(
                f"{path}, row 0: found {len(columns)} cells, the first one {columns[0]!r}; expected an enriched event: "
                f"{len(COLUMNS)} cells between tabs, JSON, or a heading with event_id and collector_tstamp"
            )
        for row, cells in enumerate(rows):
            if cells:
                yield row, _tabular(columns, cells)
    except csv.Error as error:
        raise EventError(f"{path} cannot be read as CSV: {error}") from None


def _parquet(path: Path, reading: Reading) -> Iterator[tuple[int, dict[str, Any] | str]]:
    try:
        file = pa.parquet.ParquetFile(path)
        known = [name for name in file.schema_arrow.names if _wanted(name.lower())]
        row, size = 0, path.stat().st_size
        for batch in file.iter_batches(batch_size=min(reading.chunk_rows, 10_000), columns=known):
            for place, event in enumerate(batch.to_pylist(), row):
                yield place, _with_entities(event)
            row += len(batch)
            reading.done(size * len(batch) // max(file.metadata.num_rows, 1))
    except (pa.ArrowException, OSError) as error:
        raise EventError(f"{path} cannot be read as Parquet: {error}") from None


def _wanted(column: str) -> bool:
    """Whether a column can matter: a warehouse may have hundreds of schemas."""
    if column.startswith("contexts_"):
        return _VERSION.sub("", column.removeprefix("contexts_")) in ENTITIES
    if column.startswith("unstruct_event_"):
        return _VERSION.sub("", column.removeprefix("unstruct_event_")) in TOLD
    return column in COLUMNS


def _json(line: bytes) -> dict[str, Any] | str:
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"no JSON ({error}); expected one event a line"
    return _with_entities(found) if isinstance(found, dict) else "found no object; expected one event a line"


def _tabular(columns: tuple[str, ...], cells: list[str]) -> dict[str, Any] | str:
    if len(cells) != len(columns):
        return f"found {len(cells)} cells; expected {len(columns)}"
    return _with_entities({name: cell for name, cell in zip(columns, cells, strict=True) if cell})


def _with_entities(event: dict[str, Any]) -> dict[str, Any] | str:
    """Adds `schema` and `data` of a self-describing event, and `entities`: {vendor and name: [data, ...]}."""
    plain: dict[str, Any] = {"schema": "", "data": {}}
    entities: dict[str, list[dict[str, Any]]] = {}
    try:
        for column, value in event.items():
            name = column.lower()
            if value is None:
                continue
            if name in ("contexts", "derived_contexts"):
                add_entities(entities, _decoded(value))
            elif name == "unstruct_event":
                plain |= self_described(_decoded(value))
            elif not _wanted(name):
                continue
            elif name.startswith("unstruct_event_"):
                schema = _VERSION.sub("", name.removeprefix("unstruct_event_"))
                plain |= {"schema": schema, "data": snake(_decoded(value))}
            elif name.startswith("contexts_"):
                key = _VERSION.sub("", name.removeprefix("contexts_"))
                entities.setdefault(key, []).extend(snake(entity) for entity in _decoded(value))
            else:
                # all as text, as the TSV has it
                plain[name] = value.isoformat(" ") if isinstance(value, datetime.datetime) else str(value)
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
        return f"{column} holds no self-describing JSON ({error!r})"
    return {**plain, "entities": entities}


def _decoded(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value


@lru_cache(maxsize=100_000)
def _entry(url: str, referrer: str) -> Entry:
    return entry_of(url, referrer)


def _utc_offset(event: dict[str, Any], time: Any) -> int | None:
    """By the zone that the browser names, else by that of the address."""
    zone = event.get("os_timezone") or event.get("geo_timezone") or ""
    try:
        moment = datetime.datetime.fromisoformat(str(time)).replace(tzinfo=datetime.UTC)
        return utc_offset(zone, int(moment.timestamp()) // QUARTER_SECONDS)
    except (ValueError, OverflowError):
        return None  # a time that is none is refused with its row later on
