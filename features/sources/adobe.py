"""Data feeds of Adobe Analytics: raw hits as Adobe delivers them.

In: `hit_data.tsv` or its numbered parts, loose, compressed, or in the delivered tar.gz or zip, without a heading; the
lookup files that belong to it (`column_headers.tsv`, `event.tsv`, `mobile_attributes.tsv`), in the same archive, beside
it, or in a `lookup_data` archive beside it. Out: canonical events, one or several a hit. An empty cell or a column that
the feed does not hold is missing; hits that Adobe leaves out of its reports are left out and counted.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import IO, Any, Final

import pandas as pd
from pydantic import Field

from features.errors import EventError
from features.settings import Settings
from features.shop import SourceSettings
from features.sources.adobe_events import EVENTS
from features.sources.adobe_hit import COLUMNS, Hit, HitReader
from features.sources.convert import from_records
from features.sources.reading import CUT_OFF_STREAM, Reading

DEFAULTS: Final = SourceSettings(
    events=EVENTS,
    # ref_type, as referrer_type.tsv numbers it: a hard drive counts as direct, Usenet and AI tools as other sites
    channels={
        "1": "internal",
        "2": "referral",
        "3": "organic",
        "4": "direct",
        "5": "referral",
        "6": "direct",
        "7": "email",
        "8": "unknown",
        "9": "social",
        "10": "referral",
    },
    # device types of mobile_attributes.tsv; it comes with feeds that hold no user agent
    devices={
        "Mobile Phone": "mobile",
        "Media Player": "mobile",
        "Tablet": "tablet",
        "E-Reader": "tablet",
        "Television": "tv",
        "Set-top Box": "tv",
        "Gaming Console": "tv",
    },
    time_unit="s",
    unknown_events="custom",
)

_ARCHIVES: Final = (".tar.gz", ".tgz", ".tar", ".zip")
_HEADERS: Final = "column_headers.tsv"
_EVENTS: Final = ("event.tsv", "event_list.tsv", "event_lookup.tsv")
_MOBILE: Final = "mobile_attributes.tsv"
# hit_data.tsv, or [index]-[rsid]_[YYYY-mm-dd].tsv, with the hour in an hourly feed
_HIT_DATA: Final = re.compile(r"hit_data.*|(\d+-)?.+_\d{4}-?\d{2}-?\d{2}(-\d+)?(\.tsv)?")
_DEVICE_TYPE: Final = 3  # column of mobile_attributes.tsv


class AdobeOptions(Settings):
    """`[sources.adobe.options]`.

    Attributes
    ----------
    currency: of the report suite, to which Adobe converts `post_product_list`; empty: the shop's base currency.
    marketing_channels: number of a marketing channel (`va_closer_id`) -> channel of ours; it goes before the referrer.
    """

    currency: str = ""
    marketing_channels: dict[str, str] = Field(default_factory=dict)


@dataclass
class _Lookups:
    headers: list[str] = field(default_factory=list)
    events: dict[str, str] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)


def read(reading: Reading) -> Iterator[pd.DataFrame]:
    """The canonical events of the hits.

    Raises
    ------
    EventError
        There is no hit data, no file with its headings, or a hit breaks the contract of the event.
    """
    options = reading.options(AdobeOptions)
    found = reading.files("*.tsv", "*.tsv.gz", "*.tar.gz", "*.tgz", "*.zip")
    feeds = [path for path in found if _holds_hits(path.name)] if len(found) > 1 else found
    if not feeds:
        raise EventError(
            f"no hit data at {reading.location}; expected hit_data.tsv, [rsid]_[YYYY-mm-dd].tar.gz or alike"
        )
    known: dict[Path, _Lookups] = {}
    for path in feeds:
        if not path.stat().st_size:
            continue
        lookups = _lookups(path, known, reading)
        hits = HitReader(
            reading, lookups.events, lookups.devices, options.currency, options.marketing_channels, lookups.headers
        )
        yield from from_records(_records(path, hits, reading), reading, path)


def _holds_hits(name: str) -> bool:
    stem = name.removesuffix(".gz")
    for suffix in (*_ARCHIVES, ".tsv"):
        stem = stem.removesuffix(suffix)
    return "lookup" not in name and _HIT_DATA.fullmatch(stem) is not None


def _records(path: Path, hits: HitReader, reading: Reading) -> Iterator[dict[str, Any]]:
    """Records for `from_records`, one an event of ours, in the order of the feed."""
    for lines in _hit_lines(path, reading):
        for row, hit in reading.sound(_rows(lines, hits), path, "another number of cells than headings"):
            events = hits.events(hit)
            reading.notes.rows += 1 - len(events)  # a hit may be several events, which are counted later on
            for record in events:
                yield {**record, "row": row}


def _rows(lines: Iterator[bytes], hits: HitReader) -> Iterator[tuple[int, Hit | str]]:
    """(row, the cells that are wanted and not empty), or (row, what is wrong with it)."""
    headers = hits.headers
    wanted = [(place, name) for place, name in enumerate(headers) if name in COLUMNS]
    for row, line in enumerate(_whole(lines)):
        if not line:
            continue
        cells = _cells(line)
        if len(cells) != len(headers):
            yield row, f"found {len(cells)} cells; expected {len(headers)}, as {_HEADERS} names"
        else:
            yield row, {name: cells[place] for place, name in wanted if cells[place]}


def _whole(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Lines joined where a value holds a line end: Adobe writes a backslash before it."""
    held = b""
    for line in lines:
        held += line
        if (len(held) - len(held.rstrip(b"\\"))) % 2:
            held += b"\n"
            continue
        yield held
        held = b""
    if held:
        yield held


def _cells(line: bytes) -> list[str]:
    """The cells of a row, a backslash taken as Adobe documents it: tab, line end and backslash stand for themselves."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        text = line.decode("iso-8859-1")  # what Adobe documents; newer feeds hold UTF-8
    if "\\" not in text:
        return text.split("\t")
    cells = text.replace("\\\\", "\0").replace("\\\t", " ").replace("\\\n", " ").split("\t")
    return [cell.replace("\\t", " ").replace("\\n", " ").replace("\0", "\\") for cell in cells]


def _hit_lines(path: Path, reading: Reading) -> Iterator[Iterator[bytes]]:
    """The lines of each hit data file: the file itself, or those in the archive."""
    if not path.name.endswith(_ARCHIVES):
        yield reading.lines(path)
        return
    for name, stream in _members(path, reading):
        if _holds_hits(name):
            yield _lines(stream, path, reading)
    reading.done(path.stat().st_size)


def _lookups(path: Path, known: dict[Path, _Lookups], reading: Reading) -> _Lookups:
    """What the lookup files nearest to some hit data say: its own archive first, then those most alike in name."""
    folder = path.parent
    stem = re.sub(r"^\d+-", "", path.name)
    near = sorted(
        {
            file
            for pattern in ("*.tsv*", "*lookup*", "*lookup*/*")
            for file in folder.glob(pattern)
            if file.is_file() and (_is_lookup(file.name) or "lookup_data" in file.name)
        },
        key=lambda file: (-_alike(stem, file.name), file.name),
    )
    found = _Lookups()
    for source in [path] * path.name.endswith(_ARCHIVES) + near:
        if source not in known:
            known[source] = _read_lookups(source, reading)
        found.headers = found.headers or known[source].headers
        found.events = found.events or known[source].events
        found.devices = found.devices or known[source].devices
    if not found.headers:
        raise EventError(f"{path}: no {_HEADERS} in its archive or beside it; it comes with the feed's lookup files")
    for needed in (("post_visid_high", "visid_high"), ("hit_time_gmt", "cust_hit_time_gmt")):
        if not set(needed) & set(found.headers):
            raise EventError(f"{path}: the feed has no column {needed[0]!r}; add it to the feed and deliver it again")
    return found


def _alike(one: str, other: str) -> int:
    """Letters that two names have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _is_lookup(name: str) -> bool:
    return name.removesuffix(".gz") in (_HEADERS, _MOBILE, *_EVENTS)


def _read_lookups(path: Path, reading: Reading) -> _Lookups:
    found = _Lookups()
    for name, stream in _members(path, reading):
        if not _is_lookup(name):
            continue
        rows = [_cells(line) for line in _lines(stream, path, reading) if line]
        if name == _HEADERS:
            found.headers = rows[0] if rows else []
        elif name in _EVENTS:
            found.events = {row[0]: row[1] for row in rows if len(row) > 1}
        else:
            found.devices = {row[0]: row[_DEVICE_TYPE] for row in rows if len(row) > _DEVICE_TYPE}
    return found


def _members(path: Path, reading: Reading) -> Iterator[tuple[str, IO[bytes]]]:
    """(name, content) of each file of an archive, archives in it included, or of the file itself."""
    with path.open("rb") as raw:
        try:
            yield from _unpacked(path.name, raw)
        except (EOFError, tarfile.ReadError) as error:
            _ended(error, path, reading)
        except (OSError, zlib.error, zipfile.BadZipFile) as error:
            raise EventError(f"{path} cannot be read: {error}") from None


def _unpacked(name: str, stream: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    if name.endswith(".zip"):
        with zipfile.ZipFile(stream) as archive:
            for member in archive.namelist():
                with archive.open(member) as inner:
                    yield from _unpacked(Path(member).name, inner)
    elif name.endswith(_ARCHIVES):
        with tarfile.open(fileobj=stream, mode="r|*") as archive:
            for entry in archive:
                content = archive.extractfile(entry)
                if content:
                    yield from _unpacked(Path(entry.name).name, content)
    elif name.endswith(".gz"):
        yield name.removesuffix(".gz"), gzip.GzipFile(fileobj=stream)  # type: ignore[misc]
    else:
        yield name, stream


def _lines(stream: IO[bytes], path: Path, reading: Reading) -> Iterator[bytes]:
    try:
        for line in stream:
            yield line.rstrip(b"\r\n")
    except (EOFError, tarfile.ReadError) as error:
        _ended(error, path, reading)
    except (OSError, zlib.error) as error:
        raise EventError(f"{path} cannot be read: {error}") from None


def _ended(error: Exception, path: Path, reading: Reading) -> None:
    """Notes an archive that a copy cut short, once: its lookup files and hits are read one after the other."""
    if isinstance(error, tarfile.ReadError) and "unexpected end" not in str(error) and "empty" not in str(error):
        raise EventError(f"{path} cannot be read: {error}") from None
    reading.notes.skipped[CUT_OFF_STREAM] = max(reading.notes.skipped[CUT_OFF_STREAM], 1)
