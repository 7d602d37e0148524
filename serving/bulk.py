"""Many feature vectors for nightly jobs: NDJSON or an Arrow stream in, the same out, in bounded memory.

Rows are read, checked and scored in pieces, in a thread; only their scores are kept until the last row was read. So a
bad row is refused with its number instead of breaking off half an answer, and a client that sends everything before it
reads anything is served, too.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import numpy as np
import pyarrow as pa

from serving.http.bodies import chunks
from serving.http.call import Call, Reply
from serving.problems import Problem

if TYPE_CHECKING:
    from serving.scorer import Scorer

NDJSON: Final = "application/x-ndjson"
ARROW: Final = "application/vnd.apache.arrow.stream"

_PIECE_ROWS: Final = 2_048
# JSON is decoded with the interpreter held: every so many rows it is handed to who answers events meanwhile.
_HELD_ROWS: Final = 32
_PAUSE_SECONDS: Final = 0.000_1
_LINE_BYTES: Final = 100_000
# What a block of an Arrow stream may take: it is read whole.
_BLOCK_BYTES: Final = 64_000_000
_LARGEST: Final = 3.4e38  # of a 32-bit float
# Of Arrow's metadata: how numbers lie, and the fields `header` of a Message and `compression` of a RecordBatch.
_INT32, _UINT32, _UINT16 = Struct("<i"), Struct("<I"), Struct("<H")
_HEADER: Final = 2
_COMPRESSION: Final = 3


class Bulk:
    """POST /v1/score for rows in bulk."""

    def __init__(self) -> None:
        self._running = 0

    async def post(self, call: Call, kind: str) -> Reply:
        """Score every row of the body.

        Raises
        ------
        Problem
            As of `chunks`; 422: a bad row, or too many; 503: as many jobs as there may be are running.
        """
        engine = call.engine
        server = engine.settings.server
        if self._running >= server.bulk_at_once:
            raise Problem(503, f"{server.bulk_at_once} bulk jobs run at a time", retry_after_seconds=30)
        self._running += 1
        try:
            parts = chunks(call.receive, call.scope, call.headers, server.bulk_body_limit_bytes)
            job = Job(engine.scorer, engine.fold.names, server.bulk_rows)
            pieces = job.ndjson if kind == NDJSON else job.arrow
            body = io.BufferedReader(cast(Any, _Feed(parts, asyncio.get_running_loop())), 65_536)
            await asyncio.to_thread(job.run, pieces(body))
        finally:
            self._running -= 1
        answer = job.as_ndjson() if kind == NDJSON else job.as_arrow()
        models = ", ".join(f"{name}={version}" for name, version in job.scorer.versions.items())
        return Reply(kind.encode(), _parts(answer), headers=((b"lotse-models", models.encode()),))


class Job:
    """One job: rows in, scores kept.

    Attributes
    ----------
    scores: of each head pieces of float64 (n,), NaN where it has none.
    """

    def __init__(self, scorer: Scorer, names: Sequence[str], most: int) -> None:
        self.scorer = scorer
        self.rows = 0
        self.scores: dict[str, list[np.ndarray]] = {name: [] for name in (*scorer.heads, *scorer.priors)}
        self._names, self._most = names, most

    def run(self, pieces: Iterator[np.ndarray]) -> None:
        """Score pieces of float64 (n, F)."""
        for piece in pieces:
            self._check(piece)
            matrix = piece.astype(np.float32)
            for name, scores in self.scorer.said(matrix).items():
                self.scores[name].append(scores)
            for name, prior in self.scorer.priors.items():
                self.scores[name].append(np.full(len(matrix), prior))
            self.rows += len(matrix)
        if not self.rows:
            raise Problem(422, "found no rows; expected one or more, with every feature of GET /v1/features")

    def _check(self, piece: np.ndarray) -> None:
        if self.rows + len(piece) > self._most:
            raise Problem(422, f"more than {self._most:,} rows; send them in several requests")
        with np.errstate(invalid="ignore"):
            rows, columns = np.nonzero(~(np.abs(piece) < _LARGEST) & ~np.isnan(piece))
        if len(rows):
            name = self._names[columns[0]]
            raise Problem(422, f"row {self.rows + rows[0]}: {name} is out of the range of a 32-bit float")

    def ndjson(self, body: io.BufferedReader) -> Iterator[np.ndarray]:
        """The rows of lines such as {"events": 3, "idle_seconds": null, ...}: pieces of float64 (n, F)."""
        fields: Any = [(name, float | None) for name in self._names]
        decode = msgspec.json.Decoder(msgspec.defstruct("Row", fields, forbid_unknown_fields=True)).decode
        values = msgspec.structs.astuple
        rows: list[tuple[Any, ...]] = []
        parts: list[np.ndarray] = []
        number = 0
        while line := body.readline(_LINE_BYTES):
            if len(line) == _LINE_BYTES:
                raise Problem(422, f"row {number} is longer than {_LINE_BYTES:,} bytes")
            if line.isspace():
                continue
            try:
                rows.append(values(decode(line)))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise Problem(422, f"row {number}: {error}; see GET /v1/features") from None
            number += 1
            if len(rows) == _HELD_ROWS:
                parts.append(np.array(rows, np.float64))
                rows.clear()
                time.sleep(_PAUSE_SECONDS)
                if len(parts) * _HELD_ROWS == _PIECE_ROWS:
                    yield np.concatenate(parts)
                    parts.clear()
        if rows:
            parts.append(np.array(rows, np.float64))
        if parts:
            yield np.concatenate(parts)

    def arrow(self, body: io.BufferedReader) -> Iterator[np.ndarray]:
        """The rows of record batches with a numeric column for each feature: pieces of float64 (n, F)."""
        try:
            messages = pa.ipc.MessageReader.open_stream(_Blocks(body))
            first = _message(messages)
            if first is None or first.type != "schema":
                raise Problem(400, "the body is not an Arrow stream: it does not begin with a schema")
            schema = pa.ipc.read_schema(first)
            self._check_schema(schema)
            for message in iter(lambda: _message(messages), None):
                if message.type != "record batch":
                    raise Problem(400, f"the body is not an Arrow stream of record batches: found a {message.type}")
                if is_compressed(message.metadata):
                    # nobody knows how long it gets before it is there
                    raise Problem(422, "the blocks of the Arrow stream are compressed; compress the whole body instead")
                batch = pa.ipc.read_record_batch(message, schema)
                batch.validate(full=True)  # what comes from outside may name places where it has nothing
                for start in range(0, len(batch), _PIECE_ROWS):
                    piece = batch.slice(start, _PIECE_ROWS)
                    columns = [piece.column(name).cast(pa.float64()) for name in self._names]
                    yield np.column_stack([column.to_numpy(zero_copy_only=False) for column in columns])
        except (pa.ArrowException, OSError, ValueError, EOFError) as error:
            raise Problem(400, f"the body is not an Arrow stream: {str(error)[:200]}") from None

    def _check_schema(self, schema: pa.Schema) -> None:
        names = schema.names
        for name in self._names:
            if names.count(name) != 1:
                raise Problem(422, f"the feature {name!r} has no column, or several; give every feature one")
        for column in schema:
            if column.name not in self._names:
                raise Problem(422, f"unknown feature {column.name[:80]!r}; see GET /v1/features")
            if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
                raise Problem(422, f"the column {column.name} is of type {column.type}; expected a number")

    def as_ndjson(self) -> Iterator[bytes]:
        """A line of scores for each row; a head without one is left out."""
        lines = msgspec.json.Encoder().encode_lines
        names = list(self.scores)
        for pieces in zip(*self.scores.values(), strict=True):
            rows = zip(*(piece.tolist() for piece in pieces), strict=True)
            yield lines([{n: score for n, score in zip(names, row, strict=True) if score == score} for row in rows])  # noqa: PLR0124

    def as_arrow(self) -> Iterator[bytes]:
        """A column of scores for each head, null where it has none."""
        schema = pa.schema([(name, pa.float64()) for name in self.scores], {"models": str(self.scorer.versions)})
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, schema) as writer:
            for pieces in zip(*self.scores.values(), strict=True):
                columns = [pa.array(piece, pa.float64(), from_pandas=True) for piece in pieces]
                writer.write_batch(pa.record_batch(columns, schema=schema))
                yield _taken(sink)
        yield _taken(sink)


class _Feed(io.RawIOBase):
    """What comes from the network, for a thread that reads it; the network waits for the thread."""

    def __init__(self, parts: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._parts, self._loop, self._left = parts, loop, memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill some of the buffer."""
        while not self._left:
            part = asyncio.run_coroutine_threadsafe(_next(self._parts), self._loop).result()
            if part is None:
                return 0
            self._left = memoryview(part)
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size


class _Blocks:
    """A body as Arrow reads it; a block that says that it is very long is refused before memory is taken for it."""

    closed = False

    def __init__(self, body: io.BufferedReader) -> None:
        self._body = body

    def read(self, size: int = -1) -> bytes:
        """So many bytes, or less at the end."""
        if not 0 <= size <= _BLOCK_BYTES:
            raise Problem(422, f"a record batch is longer than {_BLOCK_BYTES:,} bytes; send smaller ones")
        return self._body.read(size)

    def close(self) -> None:
        """Nothing to let go of."""


def is_compressed(metadata: pa.Buffer) -> bool:
    """Whether a record batch's buffers are compressed: the metadata's RecordBatch has the field `compression`.

    It is a flatbuffer, which Arrow has verified: a table begins with the way back to the list of where its fields are.
    """
    content = memoryview(metadata)

    def field(table: int, number: int) -> int:
        fields = table - _INT32.unpack_from(content, table)[0]
        size, place = _UINT16.unpack_from(content, fields)[0], 4 + 2 * number
        found = _UINT16.unpack_from(content, fields + place)[0] if place < size else 0
        return table + found if found else 0

    message = _UINT32.unpack_from(content, 0)[0]
    header = field(message, _HEADER)
    return bool(field(header + _UINT32.unpack_from(content, header)[0], _COMPRESSION))


def _message(messages: pa.MessageReader) -> pa.Message | None:
    try:
        return messages.read_next_message()
    except StopIteration:
        return None


async def _next(parts: AsyncIterator[bytes]) -> bytes | None:
    return await anext(parts, None)


async def _parts(answer: Iterator[bytes]) -> AsyncIterator[bytes]:
    step: Callable[[], bytes | None] = lambda: next(answer, None)  # noqa: E731
    while (part := await asyncio.to_thread(step)) is not None:
        yield part


def _taken(sink: io.BytesIO) -> bytes:
    part = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return part
