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

# Events gathered at a time: their columns stay in the second-level cache.
_BLOCK_EVENTS: Final = 4096
_VIEWS: Final = {
    "i8": "int64",
    "f8": "float64",
    "i4": "int32",
    "f4": "float32",
    "i2": "int16",
    "i1": "int8",
    "u1": "uint8",
}


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
    def advance(self) -> Any:
        """advance(record, out, timeout_ms, *event) -> status: fold one event and write the features right after it.

        record: uint8 (record_bytes,), changed in place; out: float32 (len(names),), written; event: the values of
        `features.events.Event`. Returns DUPLICATE, LATE, FOLDED or STARTED of `features.sessions`; after DUPLICATE
        and LATE the features are those of the latest event that was folded.
        """
        return self.module.advance

    @cached_property
    def read(self) -> Any:
        """read(record, now_ms, out): write the features as of `now_ms`, idle time included."""
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
    _, record_bytes = _layout(catalogue.fields.values())
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


def _layout(fields: Iterable[Field]) -> tuple[dict[str, tuple[str, int]], int]:
    """Field name -> (dtype, index into the record seen as that dtype), and the record's size in bytes."""
    places: dict[str, tuple[str, int]] = {}
    offset = 8 * HEADER_WORDS
    for entry in sorted(fields, key=lambda field: -np.dtype(field.dtype).itemsize):
        size = np.dtype(entry.dtype).itemsize
        places[entry.name] = (entry.dtype, offset // size)
        offset += size
    return places, -(-offset // 8) * 8


def _generate(catalogue: Catalogue) -> tuple[str, tuple[str, ...], str]:
    """The module's text, the event columns it reads, and the part of the text that makes a record."""
    emitter = Emitter()
    places, record_bytes = _layout(catalogue.fields.values())
    admit = emitter.function(sessions.admit)
    begin, step, columns = _begin(catalogue, places), *_step(catalogue, places, emitter)
    field_text = "\n".join([emitter.text(), begin, step, repr(places)])
    read = _read(catalogue, places, emitter)
    for name, value in vars(sessions).items():
        if name.startswith("HEADER_"):
            emitter.constant(name, value)
    emitter.constant("LINK", CONSENT_LINK)
    parts = [
        f'"""A fold of {len(catalogue.fields)} fields and {len(catalogue.features)} features in '
        f'{record_bytes} bytes. Generated by features/compiler.py: do not edit."""',
        "import math\nimport numpy as np\nfrom numba import njit",
        emitter.text(),
        begin,
        step,
        read,
        _LIVE.format(
            admit=admit,
            views=", ".join(_views(catalogue)),
            view_lines=_view_lines(catalogue),
            event=", ".join(COLUMNS),
            columns=_joined(_event_value(c, "{}") for c in columns),
        ),
        _RUN.format(
            record_bytes=record_bytes,
            width=len(catalogue.features),
            views=", ".join(_views(catalogue)),
            view_lines=_view_lines(catalogue),
            arrays=_joined(f"{c}_column" for c in columns if c != "time"),
            columns=_joined(_event_value(c, "{}_block[i]") for c in columns),
            block=_BLOCK_EVENTS,
            blocks="\n".join(
                f"    {c}_block = np.empty({_BLOCK_EVENTS}, np.{_block_dtype(c)})" for c in columns if c != "time"
            ),
            gathers="\n".join(
                f"        for i in range(size):\n            {c}_block[i] = {c}_column[places[i]]"
                for c in columns
                if c != "time"
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


def _load_line(name: str, place: tuple[str, int]) -> str:
    dtype, index = place
    cast = "float" if dtype[0] == "f" else "int"
    return f"    {name} = {cast}({dtype}[{index}])"


def _views(catalogue: Catalogue) -> tuple[str, ...]:
    """The dtypes as which the functions see the record: made once a caller, a view costs 10 ns in compiled code."""
    return tuple(sorted({"i8", *(entry.dtype for entry in catalogue.fields.values())}))


def _view_lines(catalogue: Catalogue) -> str:
    return "\n".join(f"    {dtype} = record.view(np.{_VIEWS[dtype]})" for dtype in _views(catalogue))


def _begin(catalogue: Catalogue, places: dict[str, tuple[str, int]]) -> str:
    """Reset the session's fields; the visitor's too unless they may be kept."""
    lines = ['@njit(cache=True, error_model="numpy")', f"def begin({', '.join(_views(catalogue))}, keep_visitor):"]
    by_scope: dict[str, list[str]] = {"session": [], "visitor": []}
    for entry in catalogue.fields.values():
        dtype, index = places[entry.name]
        by_scope[entry.scope].append(f"{dtype}[{index}] = {entry.initial!r}")
    lines += [f"    {line}" for line in by_scope["session"]]
    if by_scope["visitor"]:
        lines.append("    if not keep_visitor:")
        lines += [f"        {line}" for line in by_scope["visitor"]]
    return "\n".join([*lines, "    return"])


def _step(catalogue: Catalogue, places: dict[str, tuple[str, int]], emitter: Emitter) -> tuple[str, tuple[str, ...]]:
    """All fields at once: load what the bodies read, compute every new value, then store them."""
    entries = catalogue.fields.values()
    sources = {source for entry in entries for source in entry.inputs.values()}
    columns = tuple(column for column in COLUMNS if column in sources)
    used = [name for name in catalogue.fields if name in sources]
    lines = [
        '@njit(cache=True, error_model="numpy", forceinline=True)',
        f"def step({', '.join([*_views(catalogue), *columns])}):",
    ]
    lines += [_load_line(name, places[name]) for name in used]
    lines += [f"    new_{entry.name} = {emitter.expression(entry.body, entry.inputs)}" for entry in entries]
    for entry in entries:
        dtype, index = places[entry.name]
        lines.append(f"    {dtype}[{index}] = new_{entry.name}")
    return "\n".join([*lines, "    return"]), columns


def _read(catalogue: Catalogue, places: dict[str, tuple[str, int]], emitter: Emitter) -> str:
    """The features as of `now`, each after those it needs; without its consent a feature is missing."""
    entries = catalogue.features
    sources = {source for entry in entries.values() for source in entry.inputs.values()}
    used = [name for name in catalogue.fields if name in sources]
    lines = [
        '@njit(cache=True, error_model="numpy", forceinline=True)',
        f"def read_at({', '.join(_views(catalogue))}, now, out, at):",
    ]
    lines += [_load_line(name, places[name]) for name in used]
    lines.append("    consent = i8[HEADER_CONSENT]")
    lines.append("    now = max(now, i8[HEADER_LAST_AT])")
    position = {name: index for index, name in enumerate(entries)}
    for name in catalogue.feature_order():
        entry = entries[name]
        if entry.body is not None:
            lines.append(f"    {name} = {emitter.expression(entry.body, entry.inputs)}")
        value = f"{name} if consent & {entry.consent} else math.nan" if entry.consent else name
        lines.append(f"    out[at + {position[name]}] = {value}")
    return "\n".join([*lines, "    return"])


_LIVE: Final = '''@njit(cache=True, error_model="numpy")
def advance(record, out, timeout_ms, {event}):
    """Fold one event into the record and write the features right after it; returns what was done with it."""
{view_lines}
    status = {admit}(i8, timeout_ms, visitor, session, id, time)
    if status >= FOLDED:
        if status == STARTED:
            begin({views}, (i8[HEADER_CONSENT] & consent & LINK) != 0)
        i8[HEADER_CONSENT] = consent
        header_time = max(time, i8[HEADER_LAST_AT])
        step({views}{columns})
    read_at({views}, i8[HEADER_LAST_AT], out, 0)
    return status


@njit(cache=True, error_model="numpy")
def read(record, now, out):
    """Write the features as of `now`."""
{view_lines}
    read_at({views}, now, out, 0)'''

_RUN: Final = '''@njit(cache=True, error_model="numpy", nogil=True)
def run(first, last, order, statuses, silences, checkpoints, first_row, visitor_column, time_column, consent_column,
        matrix, row_event, row_prefix, row_idle{arrays}):
    """Fold the places [first, last) of the order, whole visitors, and write their rows from `first_row` on.

    `order` leads to the events by visitor and, within one, by time; statuses and silences by place are what
    `features.grouping.sessionise` got from `admit`. Returns the next row.
    """
    record = np.zeros({record_bytes}, np.uint8)
{view_lines}
    header = i8
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
                begin({views}, same and (header[HEADER_CONSENT] & consent_block[i] & LINK) != 0)
                header[HEADER_VISITOR] = visitor_block[i]
                header[HEADER_EVENTS] = 0
                header[HEADER_LAST_AT] = time_block[i]
            header[HEADER_CONSENT] = consent_block[i]
            header[HEADER_EVENTS] += 1
            header[HEADER_LAST_AT] = max(time_block[i], header[HEADER_LAST_AT])
            step({views}{columns})
            now = header[HEADER_LAST_AT]
            read_at({views}, now, matrix, row * {width})
            row_event[row] = place
            row_prefix[row] = header[HEADER_EVENTS]
            row += 1
            for checkpoint in checkpoints:
                if checkpoint >= silences[place]:
                    break
                read_at({views}, now + checkpoint, matrix, row * {width})
                row_event[row] = place
                row_prefix[row] = header[HEADER_EVENTS]
                row_idle[row] = checkpoint
                row += 1
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
