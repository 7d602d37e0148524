"""One reading of a log: what a reader needs (where, which settings, whose key) and what it notes down on the way."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from features.errors import EventError
from features.pseudonyms import Pseudonymiser
from features.settings import Settings, options_of
from features.shop import ShopSettings, SourceSettings

# Enough for whole-column work to pay, little enough that a chunk of canonical events takes 30 MB.
CHUNK_ROWS: Final = 250_000
# The two ways in which a file that somebody is still writing, or that a copy cut short, comes to an end.
CUT_OFF: Final = "the file ends in the middle of this row"
CUT_OFF_STREAM: Final = "the compressed file ends early"
COMPRESSED: Final = (".gz", ".bz2", ".xz")
_BLOCK_BYTES: Final = 1 << 20

Progress = Callable[[int, int], None]
Options = TypeVar("Options", bound=Settings)
Row = TypeVar("Row")


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
class _Size:
    done: int = 0
    whole: int = 0


@dataclass
class Reading:
    """A log being read.

    Attributes
    ----------
    location: a file, a folder, a pattern such as `logs/*.gz`, or for `sql` a database URL.
    settings: the source's defaults with the shop's section on top.
    progress: called with (bytes done, bytes in all) now and then.
    chunk_rows: about how many events a yielded table should hold at most.

    A reader whose files differ in layout reads each with a `dataclasses.replace(reading, settings=...)`, which shares
    the notes and the progress.
    """

    location: str
    settings: SourceSettings
    shop: ShopSettings
    pseudonyms: Pseudonymiser
    notes: Notes = field(default_factory=Notes)
    progress: Progress = lambda done, whole: None
    chunk_rows: int = CHUNK_ROWS
    _size: _Size = field(default_factory=_Size)

    def files(self, *patterns: str) -> list[Path]:
        """The files of the location, sorted: itself, those of the folder (by `patterns`, any file without), or matches.

        Raises
        ------
        EventError
            There are none.
        """
        if "://" in self.location:  # may hold a password: not repeated
            raise EventError("the location is a URL; this source reads files: give a file, a folder or a pattern")
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
        self._size.whole += sum(file.stat().st_size for file in found)
        return found

    def done(self, size: int) -> None:
        """Note that `size` more bytes of the files were read."""
        self._size.done += size
        self.progress(min(self._size.done, self._size.whole), self._size.whole)

    def lines(self, path: Path) -> Iterator[bytes]:
        """The lines of a text file, gzip, bzip2 or xz included, without their ends; empty lines too.

        A compressed file that ends early gives the whole lines up to there and is noted down.
        """
        with self.text(path) as text:
            while block := text.read(_BLOCK_BYTES):
                for line in block.split(b"\n")[:-1]:
                    yield line.rstrip(b"\r")
            if text.tail:
                yield text.tail

    def blocks(self, path: Path) -> Iterator[bytes]:
        """The bytes of a file, decompressed, a block at a time: for a format whose only line may be the whole file."""
        with self.text(path) as text:
            seen = 0
            while block := text.block(_BLOCK_BYTES):
                yield block
                self.done(text.raw.tell() - seen)
                seen = text.raw.tell()

    @contextmanager
    def text(self, path: Path) -> Iterator[TextFile]:
        """A text file to be read in blocks of whole lines."""
        with path.open("rb") as raw, _opened(raw, path) as stream:
            yield TextFile(self, path, raw, stream)

    def sound(self, found: Iterable[tuple[int, Row | str]], path: Path, reason: str) -> Iterator[tuple[int, Row]]:
        """(row, what it holds) without the rows that cannot be read, which are found as a text that says why.

        The last row of a file was cut off: left out and counted. With `bad_rows = "skip"` any other is, for `reason`.

        Raises
        ------
        EventError
            Another row cannot be read.
        """
        bad: tuple[int, str] | None = None
        for row, holds in found:
            if bad:
                if self.settings.bad_rows == "error":
                    raise EventError(
                        f'{path}, row {bad[0]}: {bad[1]}. Mend it, or set bad_rows = "skip" for this source'
                    )
                self.notes.skipped[reason] += 1
            bad = None
            if isinstance(holds, str):
                bad = (row, holds)
                self.notes.rows += 1
            else:
                yield row, holds
        if bad:
            self.notes.skipped[CUT_OFF] += 1

    def options(self, model: type[Options]) -> Options:
        """`[sources.<name>.options]` as the reader's own settings.

        Raises
        ------
        SettingsError
            An option that the reader does not know, or a value of the wrong type.
        """
        return options_of("sources.<name>.options", self.settings.options, model)


@dataclass
class TextFile:
    """The whole lines of a text file, compressed or not; `tail` is what follows the last line end, once all is read."""

    reading: Reading
    path: Path
    raw: IO[bytes]
    stream: Any
    tail: bytes = b""
    ended_early: bool = False

    def read(self, size: int) -> bytes:
        """The next whole lines, about `size` bytes of them; none at the end.

        Raises
        ------
        EventError
            The file is not what its name says, or damaged.
        """
        rows, before = bytearray(self.tail), self.raw.tell()
        while len(rows) < size or b"\n" not in rows:
            block = self.block(size)
            if not block:
                break
            rows += block
        cut = rows.rfind(b"\n") + 1
        self.tail = b"" if self.ended_early else bytes(rows[cut:])
        self.reading.done(self.raw.tell() - before)
        return bytes(rows[:cut])

    def block(self, size: int) -> bytes:
        """The next bytes, at most `size`; none at the end, an early one included."""
        if self.ended_early:
            return b""
        try:
            # one read of the file below: what came before an early end is not lost
            return self.stream.read1(size)  # type: ignore[no-any-return]
        except EOFError:
            self.ended_early = True
            self.reading.notes.skipped[CUT_OFF_STREAM] += 1
        except (OSError, zlib.error, lzma.LZMAError) as error:
            raise EventError(f"{self.path} cannot be read: {error}") from None
        return b""


def first_line(path: Path) -> bytes:
    """The first line of a text file that is not empty, with its end; nothing of an empty file.

    Raises
    ------
    EventError
        The file is not what its name says, or damaged.
    """
    with path.open("rb") as raw, _opened(raw, path) as stream:
        try:
            return next((line for line in stream if line.strip()), b"")
        except EOFError:
            return b""
        except (OSError, zlib.error, lzma.LZMAError) as error:
            raise EventError(f"{path} cannot be read: {error}") from None


def _opened(raw: IO[bytes], path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        # many clients of object stores unpack a file and leave its name as it was
        start = raw.read(2)
        raw.seek(0)
        return gzip.GzipFile(fileobj=raw) if start in (b"\x1f\x8b", b"\x1f") else raw  # type: ignore[return-value]
    opened: Any = {".bz2": bz2.BZ2File, ".xz": lzma.LZMAFile}.get(path.suffix)
    return opened(raw) if opened else raw  # type: ignore[no-any-return]
