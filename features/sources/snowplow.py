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
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from features.errors import EventError
from features.settings import Settings
from features.shop import SourceSettings
from features.sources.convert import from_records
from features.sources.reading import Reading
from features.sources.snowplow_event import ENTITIES, TOLD, EnrichedEvent

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
    events={
        "page_ping": "user_engagement",
        "screen_view": "page_view",
        "link_click": "click",
        "button_click": "click",
        "focus_form": "form_start",
        "change_form": "form_start",
        "form_field": "custom",
        "submit_form": "form_submit",
        "site_search": "search",
        "social_interaction": "share",
        "transaction": "purchase",
        "transaction_item": "purchase",
        "product_view": "view_item",
        "list_view": "view_item_list",
        "list_click": "select_item",
        "checkout_step": "begin_checkout",
        "checkout_step/shipping": "add_shipping_info",
        "checkout_step/payment": "add_payment_info",
        "checkout_step/other": "custom",
        "promo_view": "view_promotion",
        "promo_click": "select_promotion",
        "trns_error": "custom",
        "enhanced_ecommerce/view": "view_item_list",
        "enhanced_ecommerce/click": "select_item",
        "enhanced_ecommerce/detail": "view_item",
        "enhanced_ecommerce/add": "add_to_cart",
        "enhanced_ecommerce/remove": "remove_from_cart",
        "enhanced_ecommerce/checkout": "begin_checkout",
        "enhanced_ecommerce/checkout_option": "custom",
        "enhanced_ecommerce/purchase": "purchase",
        "enhanced_ecommerce/refund": "refund",
        "enhanced_ecommerce/promo_click": "select_promotion",
        "add-to-basket": "add_to_cart",
        "add-to-cart": "add_to_cart",
        "remove-from-basket": "remove_from_cart",
        "remove-from-cart": "remove_from_cart",
        "media/play": "video_start",
        "media/percentprogress": "video_progress",
        "media/ended": "video_complete",
        "play_event": "video_start",
        "percent_progress_event": "video_progress",
        "ping_event": "video_progress",
        "end_event": "video_complete",
        "consent_preferences": "custom",
        "cmp_visible": "custom",
        "web_vitals": "custom",
        "timing": "custom",
    },
    # the referrer parser's mediums; "unknown" is its word for a site that it has no entry for
    channels={"search": "organic", "unknown": "referral"},
    # the device classes of the YAUAA enrichment; another class, or none, leaves it to the user agent
    devices={
        "Desktop": "desktop",
        "Phone": "mobile",
        "Mobile": "mobile",
        "Tablet": "tablet",
        "eReader": "tablet",
        "TV": "tv",
        "Set-top box": "tv",
        "Game Console": "tv",
        "Robot": "bot",
        "Robot Mobile": "bot",
        "Robot Imitator": "bot",
        "Spy": "bot",
        "Hacker": "bot",
    },
    time_unit="iso",
    unknown_events="custom",
)

NO_VISITOR: Final = "no id of a visitor or session"
OTHER_APP: Final = "another app_id"
_VERSION: Final = re.compile(r"_\d+(_\d+_\d+)?$")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])([A-Z])")


class SnowplowOptions(Settings):
    """`[sources.snowplow.options]`.

    Attributes
    ----------
    app_ids: read the events of these apps only; those of others are left out and counted. Empty: of all.
    """

    app_ids: tuple[str, ...] = ()


def read(reading: Reading) -> Iterator[pd.DataFrame]:
    """The canonical events of the files.

    Raises
    ------
    EventError
        A file has none of the known forms, or a row breaks the contract of the event.
    """
    apps = frozenset(reading.options(SnowplowOptions).app_ids)
    own = {**reading.shop.events, **reading.settings.events}
    forms: set[tuple[str, str]] = set()
    for path in reading.files():
        records = _records(path, reading, apps, own, forms)
        yield from from_records(records, reading, path)


def _records(
    path: Path, reading: Reading, apps: frozenset[str], own: Mapping[str, str], forms: set[tuple[str, str]]
) -> Iterator[dict[str, Any]]:
    """Records for `from_records`, one an event of ours, in the order of the file."""
    for row, event in reading.sound(_rows(path, reading), path, "no enriched event"):
        events: list[dict[str, Any]] = []
        if apps and event.get("app_id") not in apps:
            reading.notes.skipped[OTHER_APP] += 1
        elif not (found := EnrichedEvent(event, own, reading.settings.devices, forms)).visitor:
            reading.notes.skipped[NO_VISITOR] += 1
        else:
            events = found.events()
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
                for entity in _decoded(value).get("data", ()):
                    entities.setdefault(_schema(entity["schema"]), []).append(_snake(entity["data"]))
            elif name == "unstruct_event":
                inner = _decoded(value)["data"]
                plain |= {"schema": _schema(inner["schema"]), "data": _snake(inner["data"])}
            elif not _wanted(name):
                continue
            elif name.startswith("unstruct_event_"):
                schema = _VERSION.sub("", name.removeprefix("unstruct_event_"))
                plain |= {"schema": schema, "data": _snake(_decoded(value))}
            elif name.startswith("contexts_"):
                key = _VERSION.sub("", name.removeprefix("contexts_"))
                entities.setdefault(key, []).extend(_snake(entity) for entity in _decoded(value))
            else:
                # all as text, as the TSV has it
                plain[name] = value.isoformat(" ") if isinstance(value, datetime.datetime) else str(value)
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
        return f"{column} holds no self-describing JSON ({error!r})"
    return {**plain, "entities": entities}


def _decoded(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value


def _schema(address: str) -> str:
    """`iglu:com.acme.x-y/someThing/jsonschema/1-0-0` -> `com_acme_x_y_some_thing`, as warehouse columns are called."""
    vendor, name = address.removeprefix("iglu:").split("/")[:2]
    snake = _CAMEL.sub(r"_\1", name)
    return re.sub(r"[^a-z0-9]+", "_", f"{vendor}_{snake}".lower())


def _snake(data: Mapping[str, Any]) -> dict[str, Any]:
    """Keys as warehouses write them: `unitPrice` and `unit_price` are one."""
    return {key if key.islower() else _CAMEL.sub(r"_\1", key).lower(): value for key, value in data.items()}
