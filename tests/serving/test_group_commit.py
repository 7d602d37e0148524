"""Group commit: nobody is told before a sync that began after its commit; the loop finds out that a disk is quick."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from serving.stores import StoreError, group_commit
from serving.stores.group_commit import GroupCommit


class Disk:
    """Keeps what is written and what is synced; `seconds` is what a sync takes."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.synced, self.syncs, self.seconds = 0, 0, 0.0
        self.broken = False

    def commit(self, works: Sequence[int]) -> None:
        self.written += works

    def sync(self) -> None:
        begun = len(self.written)
        time.sleep(self.seconds)
        if self.broken:
            raise StoreError("the disk failed")
        self.synced, self.syncs = max(self.synced, begun), self.syncs + 1


def test_who_is_told_is_on_the_disk() -> None:
    async def adding() -> None:
        disk, drawn = Disk(), random.Random(3)
        groups, early, told = GroupCommit[int](disk.commit, disk.sync), list[int](), 0

        def done(future: asyncio.Future[None], number: int) -> None:
            nonlocal told
            told += future.exception() is None
            if disk.written.index(number) >= disk.synced:
                early.append(number)

        waiting = []
        for number in range(600):
            if number % 20 == 0:  # quick and slow in turn: by the loop, by the thread, and from one to the other
                disk.seconds = drawn.choice((0.0, 0.0005, 0.003))
            future = groups.add(number)
            future.add_done_callback(lambda future, number=number: done(future, number))  # type: ignore[misc]
            waiting.append(future)
            if drawn.random() < 0.5:
                await asyncio.sleep(drawn.choice((0, 0.0005, 0.002)))
        await asyncio.wait_for(asyncio.gather(*waiting, groups.synced()), 20)
        groups.close()
        assert not early and told == len(waiting) == len(disk.written)
        assert disk.syncs < len(waiting)  # some have shared one

    asyncio.run(adding())


def test_a_quick_disk_is_known_again_although_the_loop_is_never_idle() -> None:
    async def adding() -> None:
        disk = Disk()
        groups = GroupCommit[int](disk.commit, disk.sync)
        disk.seconds = 0.02
        await groups.add(0)
        assert not groups.is_quick
        disk.seconds = 0.0
        deadline, number = time.monotonic() + 20, 0
        while not groups.is_quick:
            assert time.monotonic() < deadline
            number += 1
            groups.add(number)
            busy = time.perf_counter() + 0.003  # then the thread gets Python's lock
            while time.perf_counter() < busy:
                pass
            await asyncio.sleep(0)
        groups.close()

    asyncio.run(adding())


def test_one_sync_that_takes_long_does_not_make_a_quick_disk_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    took, now = [*[0.0003] * 5, 0.1, *[0.0003] * 4, *[0.02] * 3, 0.0003], 0.0
    seconds, quick = iter(took), []

    def sync() -> None:
        nonlocal now
        now += next(seconds)

    monkeypatch.setattr(group_commit, "time", SimpleNamespace(perf_counter=lambda: now))
    groups = GroupCommit[int](lambda works: None, sync)
    for _ in took:
        groups.sync()
        quick.append(groups.is_quick)
    assert quick == [True] * 12 + [False, True]


def test_a_sync_that_fails_is_told_to_all_who_wait_for_it() -> None:
    async def adding() -> None:
        disk = Disk()
        groups = GroupCommit[int](disk.commit, disk.sync)
        for disk.seconds in (0.0, 0.01):  # the loop's own, the thread's
            disk.broken = True
            first, second = groups.add(1), groups.add(2)
            for future in (first, second):
                with pytest.raises(StoreError, match="the disk failed"):
                    await asyncio.wait_for(future, 10)
            disk.broken = False
            await asyncio.wait_for(groups.add(3), 10)
        groups.close()
        assert disk.synced == len(disk.written)

    asyncio.run(adding())
