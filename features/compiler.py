"""From a catalogue to compiled code.

In: a `Catalogue`. Out: a `Fold`. Everything that the bodies reach (helpers, constants) is written into one module by
name (`features.generate`), so the digest of its text covers all of it and numba's on-disk cache, which is keyed by the
file, is safe. `NUMBA_DISABLE_JIT=1` runs the same text as plain Python.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from numba.core.errors import NumbaError

from features.declare import Catalogue, CatalogueError
from features.generate import SYMBOL, Generated, generate, layout_of
from features.tables import NOTHING_LEARNED


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
    dtype: of the values that it writes.
    """

    names: tuple[str, ...]
    digest: str
    field_digest: int
    record_bytes: int
    columns: tuple[str, ...]
    dtype: str
    catalogue: Catalogue
    module: ModuleType

    def new_record(self) -> np.ndarray:
        """A record without events: uint8 of shape (record_bytes,)."""
        record = np.zeros(self.record_bytes, np.uint8)
        record[:8].view(np.int64)[0] = self.field_digest
        return record

    def new_row(self) -> np.ndarray:
        """A feature vector to be written into: float32 (or int64) of shape (len(names),)."""
        return np.zeros(len(self.names), self.dtype)

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
    def advance_many(self) -> Any:
        """`advance` for events of several visitors at once; the generated module tells its arguments."""
        return self.module.advance_many

    @cached_property
    def read(self) -> Any:
        """read(record, now_ms, out, tables): write the features as of `now_ms`, idle time included."""
        return self.module.read


def compile_fold(catalogue: Catalogue | None = None, dtype: str = "f4") -> Fold:
    """Compile a catalogue; without one, the whole of `features.definitions`.

    dtype: of the values that it writes, "f4" or "i8" (for keys, see `Catalogue.keys`).

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
    return assemble(catalogue, generate(catalogue, dtype), dtype)


def assemble(catalogue: Catalogue, generated: Generated, dtype: str) -> Fold:
    """The fold of a generated module, compiled.

    Raises
    ------
    CatalogueError
        Something in it cannot be compiled.
    """
    digest = hashlib.sha256(generated.text.encode()).hexdigest()[:16]
    field_digest = int.from_bytes(hashlib.sha256(generated.fields.encode()).digest()[:8], "little", signed=True)
    record_bytes = layout_of(catalogue.fields.values()).record_bytes
    return Fold(
        names=tuple(catalogue.features),
        digest=digest,
        field_digest=field_digest,
        record_bytes=record_bytes,
        columns=generated.columns,
        dtype=dtype,
        catalogue=catalogue,
        module=_compiled(generated, digest),
    )


def _compiled(generated: Generated, digest: str) -> ModuleType:
    try:
        return _load(generated.text.replace(SYMBOL, f"lotse_{digest}"), digest)
    except NumbaError as error:
        # innermost last: a helper that cannot be compiled, and the declaration that calls it
        places = [int(line) for line in re.findall(rf"lotse_fold_{digest}\.py\W+(?:line )?(\d+)", str(error))]
        found = dict.fromkeys(_origin(generated.origins, line - 1) for line in places)
        told = [origin for origin in found if origin] or ["a declaration"]
        lines = [line.strip(" >") for line in _WITHOUT_COLOUR.sub("", str(error)).splitlines()]
        said = " ".join([line for line in lines if line and not line.startswith("Failed in")][:2])
        raise CatalogueError(
            f"{' in '.join(told)} cannot be compiled: {said}. Bodies may use numbers, math, numpy and functions "
            "of those; NUMBA_DISABLE_JIT=1 runs them as plain Python"
        ) from error


_WITHOUT_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


def _origin(origins: dict[int, str], line: int) -> str:
    return origins[max(begun)] if (begun := [number for number in origins if number <= line]) else ""


def cache_folder() -> Path:
    """Where generated modules and numba's machine code live."""
    named = os.environ.get("LOTSE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lotse"


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
    # numba's cache finds the module by its name
    sys.modules[name] = module
    # the compiler's millions of objects live until it is done: to look for garbage among them takes a tenth of its time
    collecting = gc.isenabled()
    gc.disable()
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        if collecting:
            gc.enable()
    return module
