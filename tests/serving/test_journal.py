"""The embedded store with `durability = "disk"`: its journal, checkpoints, and what comes back after a power cut."""

from __future__ import annotations

import asyncio
import errno
import inspect
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import lmdb
import pytest

from serving.settings import StoreSettings
from serving.stores import Change, Closed, Entry, StoreError, Value
from serving.stores.checkpoints import Limits
from serving.stores.embedded import EmbeddedStore
from serving.stores.group_commit import GroupCommit
from serving.stores.operations import Operations, next_entry, operations
from tests.workspace import ROOT

SMALL = Limits(segment_bytes=20_000, step_bytes=4096, checkpoint_bytes=60_000, again_seconds=0)
NAME = b"visitor0"


class Put:
    """A visit that leaves a text, and closes a session of the same name."""

    def __init__(self, text: bytes, key: bytes = NAME) -> None:
        self.key, self.text = key, text
        self.entry: Entry | None = None
        self.found: bytes | None = None

    def others(self) -> Sequence[bytes]:
        return ()

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change:
        self.found = None if value is None else bytes(value)
        return Change(self.text, 7, None, [Closed(self.key + b"12345678", self.text)])


def store_in(folder: Path, durability: str = "disk", limits: Limits | None = None) -> EmbeddedStore:
    settings = StoreSettings.model_validate({"size_gib": 0.01, "durability": durability})
    return EmbeddedStore(str(folder), settings, limits)


def done(store: EmbeddedStore, visits: Iterable[Put]) -> None:
    """Each visit acknowledged before the next."""

    async def run() -> None:
        for visit in visits:
            waiting = store.apply([visit])
            if inspect.isawaitable(waiting):
                await waiting

    asyncio.run(run())


def power_cut(folder: Path) -> None:
    """What a power cut and a start of the machine leave: nothing of LMDB's file that can be used."""
    (folder / "boot").write_text("another start")
    (folder / "data.mdb").write_bytes(os.urandom(50_000))
    (folder / "lock.mdb").write_bytes(os.urandom(5_000))


Seen = TypeVar("Seen")


def seen(look: Callable[[], Seen]) -> Seen:
    """What is seen of files when none of them gets another name between being listed and being opened."""
    while True:
        with suppress(FileNotFoundError):
            return look()


def content(folder: Path) -> bytes:
    return seen(
        lambda: b"".join(
            path.read_bytes() for path in folder.iterdir() if path.name.startswith(("journal-", "checkpoint"))
        )
    )


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_was_acknowledged_comes_back_after_a_power_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = store_in(tmp_path)
    keys = [b"%08d" % number for number in range(400)]
    done(store, [Put(b"first", key) for key in keys])
    done(store, [Put(b"second", keys[0])])
    store.close()
    power_cut(tmp_path)
    with caplog.at_level(logging.INFO, "lotse.stores"):
        again = store_in(tmp_path)
    assert "401 entries of the journal" in caplog.text
    assert [again.read(key) for key in keys] == [b"second", *[b"first"] * 399]
    assert again.due(100, 1_000) == [Entry(7, key) for key in keys]
    batch = asyncio.run(claimed(again))
    assert [name for name, _ in batch] == [key + b"12345678" for key in keys]
    again.close()


async def claimed(store: EmbeddedStore) -> Sequence[Closed]:
    waiting = store.claim(1_000, 1_000, 500)
    batch = await waiting if inspect.isawaitable(waiting) else waiting
    return batch.sessions if batch else []


def test_a_future_that_was_lost_does_not_come_back_later(tmp_path: Path) -> None:
    """Of entries that were never acknowledged the first is torn, the others are whole; what follows is as long."""
    store = store_in(tmp_path)
    done(store, [Put(b"%04d" % number) for number in range(10)])
    store.close()
    (segment,) = tmp_path.glob("journal-*")
    written = bytearray(segment.read_bytes())
    torn = written.index(b"0005")
    written[torn] ^= 1
    segment.write_bytes(written)
    for found, following in ((b"0004", b"0005"), (b"0005", b"new1"), (b"new1", b"new2")):
        power_cut(tmp_path)
        store = store_in(tmp_path)
        assert store.read(NAME) == found
        done(store, [Put(following)])  # at first the same bytes as what was torn
        store.close()


def test_checkpoints_make_segments_free_that_are_used_again(tmp_path: Path) -> None:
    store = store_in(tmp_path, limits=SMALL)
    inodes = set()
    for number in range(40):
        done(store, [Put(b"%04d" % number * 200, b"%08d" % (n % 7)) for n in range(20)])
        inodes |= seen(lambda: {path.stat().st_ino for path in tmp_path.glob("journal-*")})
    until(lambda: len(list(tmp_path.glob("checkpoint.new"))) == 0)
    files = list(tmp_path.glob("journal-*"))
    # 1.3 MB were written
    assert len(inodes) < 30 and sum(path.stat().st_size for path in files) < 700_000
    assert max(int(path.name[-8:]) for path in files) > 50
    store.close()
    power_cut(tmp_path)
    again = store_in(tmp_path, limits=SMALL)
    assert [again.read(b"%08d" % n) for n in range(7)] == [b"0039" * 200] * 7
    again.close()


def test_what_was_erased_is_in_no_file_of_the_journal_after_a_while(tmp_path: Path) -> None:
    store = store_in(tmp_path, limits=SMALL._replace(checkpoint_seconds=0))
    done(store, [Put(b"canary" * 300, b"%08d" % (n % 50)) for n in range(150)])
    done(store, [Put(b"erased", b"%08d" % n) for n in range(50)])
    assert b"canary" in content(tmp_path)
    # every worker claims again and again
    until(lambda: asyncio.run(claimed(store)) is not None and b"canary" not in content(tmp_path))
    store.close()


@pytest.mark.parametrize("before", ["process", "LMDB's own order"])
def test_a_store_that_had_no_journal_goes_on_with_one_and_back(tmp_path: Path, before: str) -> None:
    if before == "process":
        store = store_in(tmp_path, "process")
        done(store, [Put(b"old")])
        store.close()
    else:  # as `disk` was before there was a journal
        with (
            lmdb.open(str(tmp_path), map_size=10_000_000, max_dbs=8) as env,
            env.begin(write=True) as transaction,
        ):
            transaction.put(NAME, b"old", db=env.open_db(b"records", txn=transaction))
    store = store_in(tmp_path)
    store.close()
    power_cut(tmp_path)
    store = store_in(tmp_path)
    assert store.read(NAME) == b"old"
    done(store, [Put(b"new")])
    store.close()
    power_cut(tmp_path)
    store = store_in(tmp_path, "process")
    assert store.read(NAME) == b"new"
    assert content(tmp_path) == b""
    done(store, [Put(b"newer")])
    store.close()
    store = store_in(tmp_path)
    assert store.read(NAME) == b"newer"
    store.close()


def test_a_file_that_was_put_there_is_believed_and_not_its_journal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_in(tmp_path / "live", limits=SMALL)
    done(store, [Put(b"backed up")])
    store._env.copy(str(tmp_path), compact=True)
    done(store, [Put(os.urandom(5_000), b"%08d" % n) for n in range(100)])
    until(lambda: not (tmp_path / "live" / "journal-00000003").exists())
    store.close()
    shutil.copy(tmp_path / "data.mdb", tmp_path / "live" / "data.mdb")
    store = store_in(tmp_path / "live")
    assert "is not of the file beside it" in caplog.text
    done(store, [Put(b"goes on", b"%08d" % 1)])
    store.close()
    power_cut(tmp_path / "live")
    store = store_in(tmp_path / "live")
    assert (store.read(NAME), store.read(b"%08d" % 1), store.count()) == (b"backed up", b"goes on", 2)
    store.close()


def test_an_entry_whose_writer_was_killed_before_it_committed_is_none(tmp_path: Path) -> None:
    if not (pid := os.fork()):
        store = store_in(tmp_path)
        done(store, [Put(b"first")])
        assert store._journal is not None
        with store._journal.begin() as transaction:
            transaction.put(NAME, b"uncommitted")
            store._journal.append(transaction._transaction, transaction._done)
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    store = store_in(tmp_path)
    assert b"uncommitted" in content(tmp_path) and store.read(NAME) == b"first"
    done(store, [Put(b"second"), Put(b"third")])
    store.close()
    power_cut(tmp_path)
    store = store_in(tmp_path)
    assert store.read(NAME) == b"third"
    store.close()


def test_nothing_is_acknowledged_after_a_sync_that_failed_until_there_is_a_checkpoint(tmp_path: Path) -> None:
    program = f"""
import asyncio, time
from pathlib import Path
from serving.stores import StoreError
from tests.serving.test_journal import Put, store_in, SMALL
store = store_in(Path({str(tmp_path / "live")!r}), limits=SMALL)
async def run():
    refused = False
    for number in range(2000):
        try:
            await store.apply([Put(b"%d" % number)])
            print("kept", number, flush=True)
            if refused: break
        except StoreError as error:
            refused = True
            print("refused", error, flush=True)
            time.sleep(0.05)
asyncio.run(run())
store.close()
"""
    # the 15th fdatasync of a thread fails, the loop's own or that of the thread that syncs
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync"]
    strace += ["-e", "inject=fdatasync:error=EIO:when=15"]
    out = subprocess.run(
        [*strace, sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert out.returncode == 0, out.stderr
    lines = out.stdout.splitlines()
    refused = [number for number, line in enumerate(lines) if line.startswith("refused")]
    assert "Input/output error" in lines[refused[0]]
    assert "could not be synced; a checkpoint is made" in lines[refused[1]]
    assert refused == list(range(refused[0], refused[-1] + 1)) and refused[-1] < 40
    power_cut(tmp_path / "live")
    store = store_in(tmp_path / "live")
    assert store.read(NAME) == lines[-1].split()[1].encode()
    store.close()


def test_who_comes_while_a_sync_fails_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own sync succeeds, and nobody knows what is missing of the journal before it."""
    real, fails = os.fdatasync, [True]

    def slow(descriptor: int) -> None:
        time.sleep(0.05)
        if fails and fails.pop():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    async def run() -> list[object]:
        first = store.apply([Put(b"one", b"%08d" % 1)])
        await asyncio.sleep(0.02)
        also = store.apply([Put(b"two", b"%08d" % 2)])
        assert first is not None and also is not None
        return await asyncio.gather(first, also, return_exceptions=True)

    store = store_in(tmp_path)
    monkeypatch.setattr(GroupCommit, "_is_here", False)  # the thread syncs
    monkeypatch.setattr(os, "fdatasync", slow)
    assert [type(one) for one in asyncio.run(run())] == [StoreError, StoreError]
    monkeypatch.setattr(os, "fdatasync", real)

    async def once_more() -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                waiting = store.apply([Put(b"three")])
                assert waiting is not None
                return await waiting
            except StoreError:  # until there is a checkpoint
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)

    asyncio.run(once_more())
    store.close()


def test_an_entry_that_packs_well_takes_little_room_and_is_read_back() -> None:
    record = bytes(1_000) + os.urandom(500)
    for records in ([record] * 8, [os.urandom(1_500)] * 8, [b"short"], [os.urandom(5_000)]):
        entry = Operations()
        for number, one in enumerate(records):
            entry.put(1, b"%08d" % number, one)
        entry.delete(2, b"gone")
        data, checksum = entry.entry(sequence=9, chain=3)
        assert len(data) < sum(map(len, records)) / 2 or records != [record] * 8
        assert len(data) < sum(map(len, records)) + 20 * len(records) + 40
        read = next_entry(memoryview(b"before" + data + b"behind"), 6, sequence=9, chain=3)
        assert read is not None and (read.checksum, read.end) == (checksum, 6 + len(data))
        found = [(table, bytes(key), value and bytes(value)) for table, key, value in operations(read.operations)]
        assert found == [*((1, b"%08d" % number, one) for number, one in enumerate(records)), (2, b"gone", None)]


def test_what_fails_is_nobody_elses_problem_in_the_same_turn(tmp_path: Path) -> None:
    class Bad(Put):
        def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change:
            raise RuntimeError("bad")

    async def run() -> list[object]:
        waiting = [store.apply([visit]) for visit in (Put(b"one", b"%08d" % 1), Bad(b""), Put(b"two", b"%08d" % 2))]
        return await asyncio.gather(*(one for one in waiting if one is not None), return_exceptions=True)

    store = store_in(tmp_path)
    kept, bad, also = asyncio.run(run())
    assert (kept, also) == (None, None) and isinstance(bad, RuntimeError)
    store.close()
    power_cut(tmp_path)
    store = store_in(tmp_path)
    assert (store.read(b"%08d" % 1), store.read(NAME), store.read(b"%08d" % 2)) == (b"one", None, b"two")
    store.close()
