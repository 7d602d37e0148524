"""`lotse features build`: a log in, Parquet files of feature rows out, on this machine or on a Dask cluster."""

from __future__ import annotations

import difflib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from features.settings import SettingsError

if TYPE_CHECKING:
    import pandas as pd

    from features.sources import Reading, Source
    from features.stream import Plan, Written

# A part of the log is read whole by one task of a cluster: 0.3 GB of events, three times that while they are split.
PART_EVENTS: Final = 2_000_000
# Moves a bar: (done, whole, what stands beside it).
_Bar = Callable[[int, int, str], None]


def build(
    source: Annotated[str, typer.Argument(help="A source or a section of the shop configuration; see lotse sources.")],
    out: Annotated[Path, typer.Option(help="Folder for the Parquet files; it must hold no rows yet.")],
    events: Annotated[
        str | None, typer.Argument(help="The log: file, folder, pattern or URL; the section's own path by default.")
    ] = None,
    shop: Annotated[Path, typer.Option(help="Shop configuration.")] = Path("configs/shop.toml"),
    feature: Annotated[
        list[str] | None, typer.Option(help="Only this feature and those it is computed from. Repeatable.")
    ] = None,
    idle: Annotated[
        str, typer.Option(help="Seconds of silence after which there is a row, too; '' for none.")
    ] = "5,10,30,60,300",
    timeout_minutes: Annotated[float, typer.Option(min=0.01, max=35_000, help="Silence that ends a session.")] = 30,
    buckets: Annotated[int, typer.Option(min=1, help="Parts the visitors are split into: more need less memory.")] = 64,
    scheduler: Annotated[str, typer.Option(help="Fold on the Dask cluster at, e.g., tcp://host:8786.")] = "",
    cluster: Annotated[bool, typer.Option("--cluster", help="Fold on a Dask cluster of this machine's cores.")] = False,
) -> None:
    """Write the feature rows of a log as Parquet files; the log need not fit into memory.

    For example: lotse features build taobao UserBehavior.csv --out rows --idle 30,300
    """
    from rich.console import Console  # noqa: PLC0415  (pandas and numba come with the rest: --help must stay fast)
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    from features.shop import load_shop  # noqa: PLC0415
    from features.sources import open_source  # noqa: PLC0415
    from features.stream import Plan, prepare_folder  # noqa: PLC0415

    if cluster and scheduler:
        raise SettingsError("--cluster starts a cluster on this machine, --scheduler uses another; give one of them")
    on_cluster = cluster or bool(scheduler)
    plan = Plan(
        features=_known(feature) if feature else None,
        idle_seconds=_seconds(idle),
        timeout_seconds=timeout_minutes * 60,
        threads=1 if on_cluster else None,
    )
    console = Console()
    said = (TextColumn("{task.description:>12}"), TextColumn("{task.fields[said]}"))
    columns = (said[0], BarColumn(), TaskProgressColumn(), said[1], TimeElapsedColumn())
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

    def bar(step: str) -> _Bar:
        task = progress.add_task(step, total=None, said="")
        return lambda done, whole, said: progress.update(task, completed=done, total=whole or None, said=said)

    read, writing = _Read(bar("reading")), bar("writing")
    reader, reading = open_source(source, events, load_shop(shop), progress=read.moved)
    try:
        prepare_folder(out)
    except OSError as error:
        raise SettingsError(str(error)) from None
    begun = time.perf_counter()
    with progress:
        if on_cluster:
            written = _by_cluster(reader, reading, read, out, plan, buckets, scheduler, writing)
        else:
            written = _here(reader, reading, read, out, plan, buckets, writing)
    seconds = time.perf_counter() - begun
    lines = [
        f"{read.events:,} events, {written.rows:,} rows in {len(written.files)} files in {out}",
        f"{seconds:.1f} s, {written.rows / seconds:,.0f} rows/s; feature digest {plan.fold().digest}",
        *(f"left out: {count:,} rows, {reason}" for reason, count in reading.notes.skipped.most_common()),
        *(f"not mapped: {name} in {count:,} rows" for name, count in reading.notes.unmapped.most_common()),
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _known(names: list[str]) -> tuple[str, ...]:
    from features.definitions import CATALOGUE  # noqa: PLC0415

    for name in names:
        if name not in CATALOGUE.features:
            near = difflib.get_close_matches(name, CATALOGUE.features)
            hint = f"did you mean {' or '.join(near)}?" if near else "lotse features list shows all"
            raise SettingsError(f"unknown feature {name!r}; {hint}")
    return tuple(names)


def _seconds(idle: str) -> tuple[float, ...]:
    try:
        seconds = tuple(float(part) for part in idle.split(",") if part.strip())
    except ValueError:
        seconds = (-1.0,)
    if not all(0 < second < float("inf") for second in seconds):
        raise SettingsError(f"--idle is {idle!r}; expected seconds such as 5,10,30,60,300")
    return seconds


class _Read:
    """How much of the log was read: its bytes move the bar, its events are counted beside it."""

    def __init__(self, bar: _Bar) -> None:
        self.bar, self.place, self.events = bar, (0, 0), 0

    def moved(self, done: int, whole: int) -> None:
        self.place = (done, whole)
        self.bar(done, whole, f"{self.events:,} events")

    def counted(self, chunks: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for chunk in chunks:
            self.events += len(chunk)
            self.moved(*self.place)
            yield chunk


def _here(reader: Source, reading: Reading, read: _Read, out: Path, plan: Plan, buckets: int, bar: _Bar) -> Written:
    from features.sources import read_chunks  # noqa: PLC0415
    from features.stream import write_rows  # noqa: PLC0415

    chunks = read.counted(read_chunks(reader, reading))
    return write_rows(chunks, out, plan, buckets=buckets, progress=_folded(bar))


def _by_cluster(
    reader: Source, reading: Reading, read: _Read, out: Path, plan: Plan, buckets: int, scheduler: str, bar: _Bar
) -> Written:
    from features.distributed import connect, write_parts, write_rows_distributed  # noqa: PLC0415
    from features.sources import read_chunks  # noqa: PLC0415

    client = connect(scheduler)
    copied = out / ".events"  # beside the rows, because that is where every worker looks
    try:
        parts, read.events = own_parts(reader, reading)
        if parts:
            read.moved(1, 1)  # by the workers
        else:
            parts = write_parts(read.counted(read_chunks(reader, reading)), copied)
        return write_rows_distributed(parts, out, client, plan, buckets=buckets, progress=_folded(bar))
    finally:
        shutil.rmtree(copied, ignore_errors=True)
        started_here = client.cluster
        client.close()
        if started_here is not None:
            started_here.close()


def own_parts(reader: Source, reading: Reading) -> tuple[list[Path], int]:
    """The log's own files and their events in all, where workers can read them as they are; otherwise none and 0.

    They can if they hold canonical events already and none is too large for one task.
    """
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    from features.sources import Reading, lotse  # noqa: PLC0415

    if reader is not lotse:
        return [], 0
    # a reading of its own: the one of the reader would count the files twice
    look = Reading(reading.location, reading.settings, reading.shop, reading.pseudonyms)
    files = [file for file in look.files("*.parquet") if file.stat().st_size]
    try:
        sizes = [pq.read_metadata(file).num_rows for file in files]
    except (OSError, pa.ArrowException):
        return [], 0  # the reader says what is wrong with them
    return (files, sum(sizes)) if max(sizes, default=0) <= PART_EVENTS else ([], 0)


def _folded(bar: _Bar) -> Callable[[int, int], None]:
    return lambda done, whole: bar(done, whole, f"{done:,} of {whole:,} events")
