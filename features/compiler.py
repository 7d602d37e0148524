"""From a catalogue to compiled code: one readable module with `step`, `read`, `advance` and `run`.

In: a `Catalogue`. Out: a `Fold`. One-line bodies are pasted in, longer ones become functions beside them; everything
they reach (helpers, constants) is written into the module by name, so the digest of its text covers all of it and
numba's on-disk cache, which is keyed by the file, is safe. `NUMBA_DISABLE_JIT=1` runs the same text as plain Python.

The record of a session is plain bytes: the header of `features.sessions`, then the fields, widest first.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from features import sessions
from features.declare import Catalogue, Field
from features.emit import Emitter
from features.events import COLUMNS, CONSENT_LINK
from features.sessions import HEADER_WORDS
from features.tables import NOTHING_LEARNED, look_up

# Events gathered at a time: their columns stay in the second-level cache.
_BLOCK_EVENTS: Final = 4096


@dataclass(frozen=True)
class Fold:
    """A compiled catalogue.

    Attributes
    ----------
    names: the features, in the order of the vector's columns.
    digest: 16 hex digits over everything the features are computed by; travels with a model.
    field_digest: the same over the fields and their layout, as int64; travels with a record.
    record_bytes: size of a session record.
    columns: the event columns that `step` reads, in its order.
    """

    names: tuple[str, ...]
    digest: str
    field_digest: int
    record_bytes: int
    columns: tuple[str, ...]
    catalogue: Catalogue
    module: ModuleType

    def new_record(self) -> np.ndarray:
        """A record without events: uint8 of shape (record_bytes,)."""
        record = np.zeros(self.record_bytes, np.uint8)
        record[:8].view(np.int64)[0] = self.field_digest
        return record

    def new_row(self) -> np.ndarray:
        """A feature vector to be written into: float32 of shape (len(names),)."""
        return np.zeros(len(self.names), np.float32)

    @cached_property
    def nothing_learned(self) -> np.ndarray:
        """Tables for `advance` and `read` before anything was learned: int64 (words,)."""
        return NOTHING_LEARNED.pack(tuple(self.catalogue.tables))

    @cached_property
    def advance(self) -> Any:
        """advance(record, out, timeout_ms, tables, *event) -> status: fold one event, write the features right after.

        record: uint8 (record_bytes,), changed in place; out: float32 (len(names),), written; tables: int64 (words,)
        of `features.tables.Tables.pack`; event: the values of `features.events.Event`. Returns DUPLICATE, LATE, FOLDED
        or STARTED of `features.sessions`; after DUPLICATE and LATE the features are those of the latest event that was
        folded.
        """
        return self.module.advance

    @cached_property
    def read(self) -> Any:
        """read(record, now_ms, out, tables): write the features as of `now_ms`, idle time included."""
        return self.module.read


def compile_fold(catalogue: Catalogue | None = None) -> Fold:
    """Compile a catalogue; without one, the whole of `features.definitions`.

    The generated module is kept in the folder named by `LOTSE_CACHE` (default: the user's cache folder) under its
    digest, so the next process loads machine code instead of compiling.

    Raises
    ------
    CatalogueError
        The catalogue does not hold together, or a body reaches something that cannot be compiled.
    """
    if catalogue is None:
        from features.definitions import CATALOGUE  # noqa: PLC0415  (definitions import this package's declarations)

        catalogue = CATALOGUE
    catalogue.check()
    text, columns, field_text = _generate(catalogue)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    field_digest = int.from_bytes(hashlib.sha256(field_text.encode()).digest()[:8], "little", signed=True)
    record_bytes = _layout(catalogue.fields.values()).record_bytes
    return Fold(
        names=tuple(catalogue.features),
        digest=digest,
        field_digest=field_digest,
        record_bytes=record_bytes,
        columns=columns,
        catalogue=catalogue,
        module=_load(text, digest),
    )


def cache_folder() -> Path:
    """Where generated modules and numba's machine code live."""
    named = os.environ.get("LOTSE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lotse"


@dataclass(frozen=True)
class _Layout:
    """Where each field lies: (dtype, byte offset); the session's fields are the bytes from `session_from` on."""

    places: dict[str, tuple[str, int]]
    session_from: int
    record_bytes: int

    def text(self, names: Iterable[str]) -> str:
        """The layout of some fields, as `features.memory` takes it."""
        return ", ".join(f"{dtype} {offset}" for dtype, offset in (self.places[name] for name in names))


def _layout(fields: Iterable[Field]) -> _Layout:
    """The header, then the visitor's fields, then the session's, which a new session clears: each widest first."""
    places: dict[str, tuple[str, int]] = {}
    offset, session_from = 8 * HEADER_WORDS, 0
    ordered = sorted(fields, key=lambda field: -np.dtype(field.dtype).itemsize)
    for scope in ("visitor", "session"):
        session_from = offset
        for entry in ordered:
            if entry.scope == scope:
                places[entry.name] = (entry.dtype, offset)
                offset += np.dtype(entry.dtype).itemsize
        offset = -(-offset // 8) * 8
    return _Layout(places, session_from, offset)


def _generate(catalogue: Catalogue) -> tuple[str, tuple[str, ...], str]:
    """The module's text, the event columns it reads, and the part of the text that makes a record."""
    emitter = Emitter()
    layout = _layout(catalogue.fields.values())
    admit = emitter.function(sessions.admit)
    begin, step, columns = _begin(catalogue, layout), *_step(catalogue, layout, emitter)
    field_text = "\n".join([emitter.text(), begin, step, repr(layout)])
    read = _read(catalogue, layout, emitter)
    for name, value in vars(sessions).items():
        if name.startswith("HEADER_"):
            emitter.constant(name, value)
    emitter.constant("LINK", CONSENT_LINK)
    gathered = [c for c in columns if c != "time"]
    parts = [
        f'"""A fold of {len(catalogue.fields)} fields and {len(catalogue.features)} features in '
        f'{layout.record_bytes} bytes. Generated by features/compiler.py: do not edit."""',
        "import math\nimport numpy as np\nfrom numba import njit\n"
        "from features.memory import load_fields, store_fields, write_row",
        emitter.text(),
        begin,
        step,
        read,
        _LIVE.format(admit=admit, event=", ".join(COLUMNS), columns=_joined(_event_value(c, "{}") for c in columns)),
        _RUN.format(
            record_bytes=layout.record_bytes,
            width=len(catalogue.features),
            arrays=_joined(f"{c}_column" for c in gathered),
            columns=_joined(_event_value(c, "{}_block[i]") for c in columns),
            block=_BLOCK_EVENTS,
            blocks="\n".join(
                f"    {c}_block = np.full({_BLOCK_EVENTS}, {c}_column[0], np.{_block_dtype(c)})" for c in gathered
            ),
            gathers="\n".join(
                f"        if varies[{number}]:\n"
                f"            for i in range(size):\n                {c}_block[i] = {c}_column[places[i]]"
                for number, c in enumerate(gathered)
            ),
        ),
    ]
    return "\n\n\n".join(parts) + "\n", columns, field_text


def _joined(parts: Iterable[str]) -> str:
    return "".join(f", {part}" for part in parts)


def _event_value(column: str, form: str) -> str:
    """An event column as `step` takes it: int64 or float64, whatever the column's own width is."""
    if column == "time":
        return "max(time_block[i], header[HEADER_LAST_AT])" if "block" in form else "header_time"
    return f"{'float' if COLUMNS[column].dtype == 'f8' else 'int'}({form.format(column)})"


def _block_dtype(column: str) -> str:
    return "float64" if COLUMNS[column].dtype == "f8" else "int64"


def _begin(catalogue: Catalogue, layout: _Layout) -> str:
    """Clear the session's fields; the visitor's too unless they may be kept."""
    lines = [
        _INLINED,
        "def begin(record, keep_visitor):",
        f"    start = {layout.session_from} if keep_visitor else {8 * HEADER_WORDS}",
        f"    for place in range(start, {layout.record_bytes}):",
        "        record[place] = 0",
    ]
    for scope, indent in (("visitor", "        "), ("session", "    ")):
        special = [entry for entry in catalogue.fields.values() if entry.scope == scope and entry.initial]
        if special and scope == "visitor":
            lines.append("    if not keep_visitor:")
        for entry in special:
            lines.append(f"{indent}store_fields(record, {layout.text([entry.name])!r}, ({entry.initial!r},))")
    return "\n".join([*lines, "    return"])


def _step(catalogue: Catalogue, layout: _Layout, emitter: Emitter) -> tuple[str, tuple[str, ...]]:
    """All fields at once: load what the bodies read, compute every new value, then store them."""
    entries = catalogue.fields.values()
    sources = {source for entry in entries for source in entry.inputs.values()}
    columns = tuple(column for column in COLUMNS if column in sources)
    lines = [_INLINED, f"def step({', '.join(['record', *columns])}):", *_loads(catalogue, layout, sources)]
    lines += [f"    new_{entry.name} = {emitter.expression(entry.body, entry.inputs)}" for entry in entries]
    for names in _batched(catalogue.fields):
        values = "".join(f"new_{name}, " for name in names)
        lines.append(f"    store_fields(record, {layout.text(names)!r}, ({values.rstrip()}))")
    return "\n".join([*lines, "    return"]), columns


def _loads(catalogue: Catalogue, layout: _Layout, sources: set[str]) -> list[str]:
    used = [name for name in catalogue.fields if name in sources]
    targets = "".join(f"{name}, " for name in used)
    return [f"    {targets.rstrip()} = load_fields(record, {layout.text(used)!r})"] if used else []


# CPython builds longer tuples by way of a list, which numba does not compile.
_TUPLE: Final = 24


def _batched(names: Iterable[str]) -> list[list[str]]:
    every = list(names)
    return [every[start : start + _TUPLE] for start in range(0, len(every), _TUPLE)]


def _read(catalogue: Catalogue, layout: _Layout, emitter: Emitter) -> str:
    """The features as of `now`, each after those it needs; without its consent a feature is missing."""
    entries = catalogue.features
    sources = {source for entry in entries.values() for source in entry.inputs.values()}
    lines = [
        _INLINED,
        "def read_at(record, header, now, out, at, tables, learned, tables_at):",
        *_loads(catalogue, layout, sources),
        "    consent = header[HEADER_CONSENT]",
        "    now = max(now, header[HEADER_LAST_AT])",
    ]
    table = {name: index for index, name in enumerate(catalogue.tables)}
    values = {}
    for name in catalogue.feature_order():
        entry = entries[name]
        if entry.body is not None:
            value = emitter.expression(entry.body, entry.inputs)
            if entry.table:
                found = emitter.function(look_up)
                value = f"{found}(tables, learned, tables_at, {table[entry.table]}, {value})"
            lines.append(f"    {name} = {value}")
        values[name] = f"{name} if consent & {entry.consent} else math.nan" if entry.consent else name
    for number, names in enumerate(_batched(entries)):
        row = "".join(f"{values[name]}, " for name in names)
        lines.append(f"    write_row(out, at + {number * _TUPLE}, ({row.rstrip()}))")
    return "\n".join([*lines, "    return"])


_INLINED: Final = '@njit(forceinline=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)'

_LIVE: Final = '''ZERO = np.array([0])[0]


@njit(cache=True, error_model="numpy")
def advance(record, out, timeout_ms, tables, {event}):
    """Fold one event into the record and write the features right after it; returns what was done with it."""
    header = record.view(np.int64)
    status = {admit}(header, timeout_ms, visitor, session, id, time)
    if status >= FOLDED:
        if status == STARTED:
            begin(record, (header[HEADER_CONSENT] & consent & LINK) != 0)
        header[HEADER_CONSENT] = consent
        header_time = max(time, header[HEADER_LAST_AT])
        step(record{columns})
    read_at(record, header, header[HEADER_LAST_AT], out, ZERO, tables, tables.view(np.float64), ZERO)
    return status


@njit(cache=True, error_model="numpy")
def read(record, now, out, tables):
    """Write the features as of `now`."""
    read_at(record, record.view(np.int64), now, out, ZERO, tables, tables.view(np.float64), ZERO)'''

_RUN: Final = '''@njit(cache=True, error_model="numpy", nogil=True)
def run(first, last, order, statuses, silences, checkpoints, first_row, visitor_column, time_column, consent_column,
        matrix, row_event, row_prefix, row_idle, tables, window_starts, window_places,
        varies{arrays}):
    """Fold the places [first, last) of the order, whole visitors, and write their rows from `first_row` on.

    `order` leads to the events by visitor and, within one, by time; statuses and silences by place are what
    `features.grouping.sessionise` got from `admit`; a session reads the tables of the last window before its start.
    A column that does not vary is not gathered. Returns the next row.
    """
    if first == last:
        return first_row
    learned = tables.view(np.float64)
    tables_at = 0
    record = np.zeros({record_bytes}, np.uint8)
    header = record.view(np.int64)
    row = first_row
    visitor_block = np.empty({block}, np.int64)
    time_block = np.empty({block}, np.int64)
    consent_block = np.empty({block}, np.int64)
{blocks}
    for block in range(first, last, {block}):
        # gathered column by column: a cache miss of one event then overlaps those of the next
        size = min({block}, last - block)
        places = order[block : block + size]
        for i in range(size):
            visitor_block[i] = visitor_column[places[i]]
            time_block[i] = time_column[places[i]]
            consent_block[i] = consent_column[places[i]]
{gathers}
        for i in range(size):
            place = block + i
            status = statuses[place]
            if status < FOLDED:
                continue
            if status == STARTED:
                same = header[HEADER_VISITOR] == visitor_block[i]
                begin(record, same and (header[HEADER_CONSENT] & consent_block[i] & LINK) != 0)
                header[HEADER_VISITOR] = visitor_block[i]
                header[HEADER_EVENTS] = 0
                header[HEADER_LAST_AT] = time_block[i]
                window = len(window_starts) - 1
                while window_starts[window] > time_block[i]:
                    window -= 1
                tables_at = window_places[window]
            header[HEADER_CONSENT] = consent_block[i]
            header[HEADER_EVENTS] += 1
            header[HEADER_LAST_AT] = max(time_block[i], header[HEADER_LAST_AT])
            step(record{columns})
            now = header[HEADER_LAST_AT]
            idle, checkpoint = 0, 0
            while True:
                read_at(record, header, now + idle, matrix, row * {width}, tables, learned, tables_at)
                row_event[row] = place
                row_prefix[row] = header[HEADER_EVENTS]
                row_idle[row] = idle
                row += 1
                if checkpoint == len(checkpoints) or checkpoints[checkpoint] >= silences[place]:
                    break
                idle = checkpoints[checkpoint]
                checkpoint += 1
    return row'''


def _load(text: str, digest: str) -> ModuleType:
    """Import the generated module from the cache folder, writing it there first if it is new."""
    name = f"lotse_fold_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    if not path.exists() or path.read_text() != text:
        # written beside and moved: another process never sees half a module
        with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".py", delete=False) as file:
            file.write(text)
        Path(file.name).replace(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
