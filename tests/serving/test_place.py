"""Where the embedded store's file lies: in memory while the service runs, and what is there afterwards."""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from features.settings import SettingsError
from serving.settings import StoreSettings
from serving.stores import Change, Entry, Store, StoreError, Value, done, open_store
from tests.workspace import ROOT, Service

KEY = b"visitor0"


class Put:
    """A visit that leaves a text, and knows what was there."""

    def __init__(self, text: bytes) -> None:
        self.key, self.text, self.found = KEY, text, b""
        self.entry: Entry | None = None

    def others(self) -> Sequence[bytes]:
        return ()

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change:
        self.found = b"" if value is None else bytes(value)
        return Change(self.text)


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder on a memory file system."""
    folder = Path("/dev/shm") / f"lotse-test-{uuid.uuid4().hex}"
    folder.mkdir(mode=0o700)
    yield folder
    shutil.rmtree(folder)


def opened(folder: Path, memory: Path | None, durability: str = "process") -> Store:
    settings = {"url": f"embedded:{folder / 'live'}", "size_gib": 0.01, "durability": durability}
    return open_store(StoreSettings.model_validate({**settings, "memory_folder": str(memory or "")}))


def put(store: Store, text: bytes) -> bytes:
    """What was there before."""

    async def run() -> bytes:
        visit = Put(text)
        await done(store.apply([visit]))
        return visit.found

    return asyncio.run(run())


def close(store: Store) -> None:
    asyncio.run(done(store.close()))


class Other:
    """Another process that has the store, until it is told or killed."""

    def __init__(self, *of: Path | str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.serving.test_place", *of],
            cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._told("ready")

    def _told(self, what: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == what

    def put(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()
        self._told("done")

    def close(self) -> None:
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=60)


def main(folder: str, memory: str, durability: str) -> None:
    """What another process does: writes what it is told, and closes the store when it is told no more."""
    store = opened(Path(folder), Path(memory) if memory else None, durability)
    print("ready", flush=True)
    for line in sys.stdin:
        put(store, line.strip().encode())
        print("done", flush=True)
    close(store)


def restart_of_the_machine(folder: Path, memory: Path) -> None:
    for live in memory.iterdir():
        shutil.rmtree(live)
    (folder / "live" / "boot").write_text("another start")


def in_folder(folder: Path) -> set[str]:
    return {path.name for path in (folder / "live").iterdir()} - {"boot", "users"}


def test_what_was_there_at_an_orderly_end_survives_a_restart_of_the_machine(tmp_path: Path, memory: Path) -> None:
    one, other = opened(tmp_path, memory), Other(tmp_path, memory, "process")
    assert put(one, b"first") == b""
    other.put("second")
    assert one.read(KEY) == b"second"
    assert in_folder(tmp_path) == set() and len(list(memory.glob("*/data.mdb"))) == 1
    close(one)
    assert in_folder(tmp_path) == set()  # the other may write more
    other.put("third")
    other.close()
    assert in_folder(tmp_path) == {"saved.mdb"}

    assert list(memory.iterdir()) == []
    restart_of_the_machine(tmp_path, memory)
    again = opened(tmp_path, memory)
    assert again.read(KEY) == b"third" and in_folder(tmp_path) == {"saved.mdb"}
    close(again)
    saved = tmp_path / "live" / "saved.mdb"
    before = saved.stat().st_ino
    close(opened(tmp_path, memory))
    assert saved.stat().st_ino == before  # nothing was written: it holds what is there
    again = opened(tmp_path, memory)
    assert put(again, b"fourth") == b"third"
    assert in_folder(tmp_path) == set()  # what is erased from now on does not come back
    close(again)
    assert in_folder(tmp_path) == {"saved.mdb"}


def test_what_was_acknowledged_survives_a_kill_and_an_old_copy_does_not_come_back(tmp_path: Path, memory: Path) -> None:
    close(opened(tmp_path, memory))
    for restarted in (False, True):
        other = Other(tmp_path, memory, "process")
        other.put("kept")
        other.kill()
        if restarted:
            restart_of_the_machine(tmp_path, memory)
        again = opened(tmp_path, memory)
        assert again.read(KEY) == (None if restarted else b"kept")
        close(again)


def test_with_a_journal_everything_acknowledged_survives_a_power_cut(tmp_path: Path, memory: Path) -> None:
    other = Other(tmp_path, memory, "disk")
    for number in range(20):
        other.put(f"{number}")
    held = {path.name.partition("-")[0] for path in (tmp_path / "live").iterdir()}
    assert held == {"boot", "users", "journal", "checkpoint", "checkpoint.lock"}
    other.kill()
    restart_of_the_machine(tmp_path, memory)
    again = opened(tmp_path, memory, "disk")
    assert again.read(KEY) == b"19"
    close(again)
    # and without a journal it goes on
    without = opened(tmp_path, memory)
    assert put(without, b"more") == b"19"
    close(without)
    restart_of_the_machine(tmp_path, memory)
    with_one = opened(tmp_path, memory, "disk")
    assert with_one.read(KEY) == b"more"
    assert not (tmp_path / "live" / "saved.mdb").exists()
    close(with_one)


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_the_file_goes_along_when_the_place_changes(
    durability: str, tmp_path: Path, memory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = memory / "one", memory / "two"
    one.mkdir()
    two.mkdir()
    places = (None, one, two, None, one)
    with caplog.at_level(logging.INFO, "lotse.stores"):
        for number, place in enumerate(places):
            store = opened(tmp_path, place, durability)
            assert put(store, b"%d" % number) == (b"a kill" if number else b"")
            close(store)
            other = Other(tmp_path, place or "", durability)
            other.put("a kill")
            other.kill()
            files = [*tmp_path.rglob("data.mdb"), *memory.rglob("data.mdb")]
            assert len(files) == 1 and files[0].is_relative_to(place or tmp_path)
    assert ("are taken from" in caplog.text) == (durability == "process")


def test_a_file_that_others_have_and_nobody_finds_is_told(tmp_path: Path, memory: Path) -> None:
    store = Other(tmp_path, memory, "process")
    store.put("first")
    (live,) = memory.iterdir()
    elsewhere = memory / "elsewhere"
    elsewhere.mkdir()
    for place in (None, elsewhere):
        with pytest.raises(StoreError, match="others have the store"):
            opened(tmp_path, place)
    assert (live / "data.mdb").exists()
    shutil.rmtree(live)  # as logind does with RemoveIPC, when the user logs out
    with pytest.raises(StoreError, match="theirs was removed, or lies where another container"):
        opened(tmp_path, memory)
    store.put("second")
    store.close()
    again = opened(tmp_path, memory)
    assert again.read(KEY) == b"second"
    close(again)


def test_a_copy_of_a_folder_leaves_the_store_it_was_made_of_alone(tmp_path: Path, memory: Path) -> None:
    store = opened(tmp_path / "one", memory)
    put(store, b"first")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for place in (memory, None):
        two = opened(tmp_path / "two", place)
        assert two.read(KEY) is None
        close(two)
    assert put(store, b"second") == b"first"
    close(store)


def test_a_folder_in_memory_that_others_can_read_or_that_is_not_there_is_refused(tmp_path: Path, memory: Path) -> None:
    store = opened(tmp_path, memory)
    (live,) = memory.iterdir()
    close(store)
    live.mkdir(mode=0o755)
    with pytest.raises(StoreError, match="is somebody else's"):
        opened(tmp_path, memory)
    live.rename(memory / "mine")
    (memory / "mine").chmod(0o700)
    live.symlink_to(memory / "mine")
    with pytest.raises(StoreError, match="is somebody else's"):
        opened(tmp_path, memory)
    live.unlink()
    close(opened(tmp_path, memory))
    with pytest.raises(SettingsError, match="memory_folder = .*there is no such folder"):
        opened(tmp_path, memory / "nowhere")


def test_a_service_goes_on_after_a_restart_of_the_machine(own_service: Callable[..., Service], memory: Path) -> None:
    event = {"visitor": "jane", "name": "page_view", "page": "/"}
    for events in (1, 2):
        running = own_service(f"store.memory_folder={memory}", "server.workers=2")
        answer = running.http.post("/v1/events", json=event).json()
        assert answer["events"] == events
        running.stop()
        assert in_folder(running.folder / "lotse-data") == {"saved.mdb"}
        restart_of_the_machine(running.folder / "lotse-data", memory)


if __name__ == "__main__":
    main(*sys.argv[1:])
