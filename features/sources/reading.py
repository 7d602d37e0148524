"""One reading of a log: what a reader needs (where, which settings, whose key) and what it notes down on the way."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from pydantic import ValidationError

from features.errors import EventError
from features.pseudonyms import Pseudonymiser
from features.settings import Settings, SettingsError
from features.shop import ShopSettings, SourceSettings

# Enough for whole-column work to pay, little enough that a chunk of canonical events takes 30 MB.
CHUNK_ROWS: Final = 250_000
# The two ways in which a file that somebody is still writing, or that a copy cut short, comes to an end.
CUT_OFF: Final = "the file ends in the middle of this row"
CUT_OFF_STREAM: Final = "the compressed file ends early"

Progress = Callable[[int, int], None]
Options = TypeVar("Options", bound=Settings)


@dataclass
class Notes:
    """What a reader saw: nothing is left out in silence.

    rows: rows of the log looked at; skipped: reason -> rows left out for it; unmapped: the log's own name -> rows that
    became `custom` events, or values (`channel Affiliates`) that became "unknown".
    """

    rows: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    unmapped: Counter[str] = field(default_factory=Counter)


@dataclass
class Reading:
    """A log being read.

    Attributes
    ----------
    location: a file, a folder, a pattern such as `logs/*.gz`, or for `sql` a database URL.
    settings: the source's defaults with the shop's section on top.
    progress: called with (bytes done, bytes in all) now and then.
    chunk_rows: about how many events a yielded table should hold at most.
    """

    location: str
    settings: SourceSettings
    shop: ShopSettings
    pseudonyms: Pseudonymiser
    notes: Notes = field(default_factory=Notes)
    progress: Progress = lambda done, whole: None
    chunk_rows: int = CHUNK_ROWS
    _done: int = 0
    _whole: int = 0

    def files(self, *patterns: str) -> list[Path]:
        """The files of the location, sorted: itself, those of the folder (by `patterns`, any file without), or matches.

        Raises
        ------
        EventError
            There are none.
        """
        path = Path(self.location)
        if path.is_file():
            found = [path]
        elif path.is_dir():
            found = [file for pattern in patterns or ("*",) for file in path.rglob(pattern) if file.is_file()]
        else:
            anchor = Path(path.anchor) if path.is_absolute() else Path()
            pattern = str(path.relative_to(anchor)) if path.is_absolute() else self.location
            matching = anchor.glob(pattern) if any(c in pattern for c in "*?[") else ()
            found = [file for file in matching if file.is_file()]
        found = sorted({file for file in found if not file.name.startswith((".", "_"))})
        if not found:
            wanted = f" of {' or '.join(patterns)}" if patterns and path.is_dir() else ""
            raise EventError(f"no file{wanted} at {self.location}; give the path of the exported log")
        self._whole += sum(file.stat().st_size for file in found)
        return found

    def done(self, size: int) -> None:
        """Note that `size` more bytes of the files were read."""
        self._done += size
        self.progress(min(self._done, self._whole), self._whole)

    def lines(self, path: Path) -> Iterator[bytes]:
        """The lines of a text file, gzip, bzip2 or xz included, without their ends; empty lines too.

        A compressed file that ends early gives the lines up to there and is noted down.
        """
        raw = path.open("rb")
        seen = 0
        with raw, _opened(raw, path) as stream:
            try:
                for number, line in enumerate(stream):
                    yield line.rstrip(b"\r\n")
                    if number % 10_000 == 0:
                        at = raw.tell()
                        self.done(at - seen)
                        seen = at
            except EOFError:
                self.notes.skipped[CUT_OFF_STREAM] += 1
            except (OSError, zlib.error, lzma.LZMAError) as error:
                raise EventError(f"{path} cannot be read: {error}") from None
        self.done(path.stat().st_size - seen)

    def options(self, model: type[Options]) -> Options:
        """`[sources.<name>.options]` as the reader's own settings.

        Raises
        ------
        SettingsError
            An option that the reader does not know, or a value of the wrong type.
        """
        try:
            return model.model_validate(self.settings.options)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in problem["loc"])
            known = ", ".join(model.model_fields) or "none"
            raise SettingsError(
                f"[sources.<name>.options] {key}: {problem['msg']} (found {problem['input']!r}); known options: {known}"
            ) from None


def _opened(raw: IO[bytes], path: Path) -> IO[bytes]:
    opened: Any = {".gz": gzip.GzipFile, ".bz2": bz2.BZ2File, ".xz": lzma.LZMAFile}.get(path.suffix)
    if opened is gzip.GzipFile:
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    return opened(raw) if opened else raw  # type: ignore[no-any-return]
