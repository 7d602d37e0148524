"""Cassandra: a record a partition, changed by lightweight transactions; closed sessions lie in the same partition.

`cassandra://host,host:9042/keyspace`. Tables are made where they are missing, the keyspace is the operator's: how many
replicas hold a record is decided there. Writes wait for a quorum. A node that is killed loses nothing acknowledged with
`commitlog_sync: batch` (or `group`), or while others of the quorum live.

Only one partition changes at once, so what helps to find records is written before them and removed after them: an
entry of the schedule, or of the list of closed sessions, whose record is not there is harmless; one that is missing
would not be. Visitors fall into 64 parts. Of each part one batch is handed on at a time; a row of `batches` holds the
names in it, so that it is claimed again as it was, and whether it was settled, so that what is being deleted is not.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from features.settings import SettingsError
from serving.settings import StoreSettings
from serving.stores import KEY_BYTES, Batch, Closed, Entry, StoreError
from serving.stores.optimistic import NOWHERE, Lying, OptimisticStore, Swap

# Tables, and what is in them.
HELD: Final = {
    "{prefix}_records": "the current session of each visitor, by pseudonym, with consent what is known of earlier "
    "ones; sessions that wait to be handed on; requests sent again",
    "{prefix}_schedule": "when which record is to be looked at",
    "{prefix}_closed": "names of sessions that wait to be handed on",
    "{prefix}_batches": "which worker hands on what, and until when",
}
PARTS: Final = 64
_HEARTBEAT_SECONDS: Final = 5
# An entry of the list whose session is not there after so long was written by somebody who came no further.
_IN_FLIGHT_MS: Final = 60_000
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS {p}_records (key blob, name blob, closed blob, stamp blob STATIC, goes_to blob STATIC, "
    "value blob STATIC, PRIMARY KEY (key, name)) WITH gc_grace_seconds = 3600",
    "CREATE TABLE IF NOT EXISTS {p}_schedule (part int, due bigint, key blob, PRIMARY KEY (part, due, key)) "
    "WITH gc_grace_seconds = 3600",
    "CREATE TABLE IF NOT EXISTS {p}_closed (part int, name blob, at bigint, PRIMARY KEY (part, name)) "
    "WITH gc_grace_seconds = 3600",
    "CREATE TABLE IF NOT EXISTS {p}_batches (part int PRIMARY KEY, name text, until bigint, names list<blob>, "
    "settled boolean)",
)
_STATEMENTS: Final = {
    "fetch": "SELECT stamp, goes_to, value FROM {p}_records WHERE key = ? LIMIT 1",
    "swap": "UPDATE {p}_records SET stamp = ?, goes_to = ?, value = ? WHERE key = ? IF stamp = ?",
    "close": "INSERT INTO {p}_records (key, name, closed) VALUES (?, ?, ?)",
    "schedule": "INSERT INTO {p}_schedule (part, due, key) VALUES (?, ?, ?)",
    "unschedule": "DELETE FROM {p}_schedule WHERE part = ? AND due = ? AND key = ?",
    "due": "SELECT due, key FROM {p}_schedule WHERE part = ? AND due <= ? LIMIT ?",
    "list": "INSERT INTO {p}_closed (part, name, at) VALUES (?, ?, ?)",
    "unlist": "DELETE FROM {p}_closed WHERE part = ? AND name = ?",
    "listed": "SELECT name, at FROM {p}_closed WHERE part = ? LIMIT ?",
    "session": "SELECT closed FROM {p}_records WHERE key = ? AND name = ?",
    "waiting": "SELECT name, closed FROM {p}_records WHERE key = ?",
    "drop": "DELETE FROM {p}_records WHERE key = ? AND name = ?",
    "batch": "SELECT name, until, names, settled FROM {p}_batches WHERE part = ?",
    "claim": "UPDATE {p}_batches SET name = ?, until = ?, names = ?, settled = false WHERE part = ? IF name = null",
    "again": "UPDATE {p}_batches SET until = ? WHERE part = ? IF name = ? AND until = ?",
    "settle": "UPDATE {p}_batches SET settled = true WHERE part = ? IF name = ?",
    "end": "DELETE FROM {p}_batches WHERE part = ? IF name = ?",
    "count": "SELECT COUNT(*) FROM {p}_schedule WHERE part = ?",
}


class CassandraStore(OptimisticStore):
    """Session records in Cassandra."""

    def __init__(self, place: str, settings: StoreSettings) -> None:
        """Connect.

        Raises
        ------
        SettingsError
            The URL names no keyspace, or one that there is not.
        StoreError
            No node answers.
        """
        super().__init__(settings.remembered)
        try:
            from cassandra import ConsistencyLevel, DriverException, InvalidRequest  # noqa: PLC0415
            from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable  # noqa: PLC0415
            from cassandra.policies import (  # noqa: PLC0415
                ConstantReconnectionPolicy,
                DCAwareRoundRobinPolicy,
                TokenAwarePolicy,
            )
            from cassandra.query import BatchStatement, BatchType  # noqa: PLC0415
        except ImportError as error:
            raise ImportError("a store in Cassandra needs: pip install 'lotse[cassandra]'") from error
        hosts, port, keyspace, login = _parsed(place)
        profile = ExecutionProfile(
            load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy()),
            consistency_level=ConsistencyLevel.LOCAL_QUORUM,
            serial_consistency_level=ConsistencyLevel.LOCAL_SERIAL,
            request_timeout=settings.timeout_seconds,
        )
        self._errors: tuple[type[Exception], ...] = (DriverException, NoHostAvailable, OSError)
        self._batch: Callable[[], Any] = lambda: BatchStatement(BatchType.UNLOGGED)
        self._cluster = Cluster(
            hosts, port, auth_provider=login, execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            connect_timeout=max(settings.timeout_seconds, 2.0),
            # the driver's own wait up to ten minutes after a long outage, and one for a connection that is silent
            reconnection_policy=ConstantReconnectionPolicy(settings.retry_seconds, max_attempts=None),
            idle_heartbeat_interval=_HEARTBEAT_SECONDS, idle_heartbeat_timeout=max(settings.timeout_seconds, 2.0),
            sockopts=[(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)],
        )  # fmt: skip
        try:
            self._session = self._cluster.connect()
            self._session.set_keyspace(keyspace)
            for table in _TABLES:
                self._session.execute(table.format(p=settings.prefix), timeout=20)
            self._statements = {
                name: self._session.prepare(text.format(p=settings.prefix)) for name, text in _STATEMENTS.items()
            }
        except InvalidRequest as error:
            self._cluster.shutdown()
            raise SettingsError(
                f"store.url: {error}; make it first, for example CREATE KEYSPACE {keyspace} WITH replication = "
                "{'class': 'NetworkTopologyStrategy', 'datacenter1': 3}"
            ) from error
        except self._errors as error:
            self._cluster.shutdown()
            raise StoreError(f"Cassandra: {error}") from error

    async def fetch(self, keys: Sequence[bytes]) -> list[Lying | None]:
        """A read a record, all at the same time."""
        found = await asyncio.gather(*(self._execute("fetch", key) for key in keys))
        return [_lying(rows) for rows in found]

    async def swap(self, swaps: Sequence[Swap]) -> list[tuple[bool, Lying | None]]:
        """A lightweight transaction a record, all at the same time."""
        return await asyncio.gather(*(self._swap(swap) for swap in swaps))

    async def _swap(self, swap: Swap) -> tuple[bool, Lying | None]:
        part = _part(swap.key)
        before = [self._execute("list", part, name, _now_ms()) for name, _ in swap.closed]
        if swap.due_ms is not None:
            before.append(self._execute("schedule", part, swap.due_ms, swap.key))
        if before:
            await asyncio.gather(*before)
        lying = swap.lying
        new = (None, None, None) if lying is None else (lying.stamp, lying.to or None, lying.value)
        values = (*new, swap.key, swap.stamp)
        if swap.closed:
            batch = self._batch()
            batch.add(self._statements["swap"], values)
            for name, value in swap.closed:
                batch.add(self._statements["close"], (swap.key, name, value))
            rows = await self._wait(batch, None)
        else:
            rows = await self._execute("swap", *values)
        if not rows[0][0]:
            return False, (await self.fetch([swap.key]))[0]
        if swap.entry is not None and swap.entry.due_ms != swap.due_ms:
            await self._execute("unschedule", part, *swap.entry)
        return True, None

    async def waiting(self, key: bytes) -> Sequence[Closed]:
        """Sessions of a record: they lie in its partition."""
        rows = await self._execute("waiting", key)
        return [Closed(row.name, row.closed) for row in rows if row.name is not None]

    async def drop(self, key: bytes) -> None:
        """Forget them; a batch may still name some."""
        for name, _ in await self.waiting(key):
            await self._execute("drop", key, name)
            await self._execute("unlist", _part(key), name)

    async def due(self, now_ms: int, limit: int) -> Sequence[Entry]:
        """The earliest of some parts, other ones every time, so that workers do not all look at the same."""
        found: list[Entry] = []
        for part in random.sample(range(PARTS), PARTS):
            found += [Entry(due, key) for due, key in await self._execute("due", part, now_ms, limit)]
            if len(found) >= limit:
                break
        return sorted(found)[:limit]

    async def claim(self, limit: int, now_ms: int, lease_ms: int) -> Batch | None:
        """The batch of a part."""
        for part in random.sample(range(PARTS), PARTS):
            rows = await self._execute("batch", part)
            if rows and rows[0].name is not None:
                name, until, names, settled = rows[0]
                if settled:
                    await self._end(part, name, names or ())
                elif until <= now_ms and await self._applied("again", now_ms + lease_ms, part, name, until):
                    return await self._of(part, name, names)
                continue
            listed = await self._execute("listed", part, limit)
            names = [row.name for row in listed]
            sessions = await self._sessions(names)
            for row, session in zip(listed, sessions, strict=True):
                if session is None and row.at < now_ms - _IN_FLIGHT_MS:
                    await self._execute("unlist", part, row.name)
            names = [name for name, session in zip(names, sessions, strict=True) if session is not None]
            batch = uuid.uuid4().hex
            if names and await self._applied("claim", batch, now_ms + lease_ms, names, part):
                return await self._of(part, batch, names)
        return None

    async def settle(self, name: str) -> None:
        """Note that it is settled, then delete it."""
        part, batch = int(name[:2], 16), name[2:]
        if await self._applied("settle", part, batch):
            rows = await self._execute("batch", part)
            await self._end(part, batch, rows[0].names or ())

    async def _end(self, part: int, batch: str, names: Iterable[bytes]) -> None:
        for name in names:
            await self._execute("drop", _key(name), name)
            await self._execute("unlist", part, name)
        await self._applied("end", part, batch)

    async def _of(self, part: int, batch: str, names: Sequence[bytes]) -> Batch:
        sessions = await self._sessions(names)
        kept = [Closed(name, value) for name, value in zip(names, sessions, strict=True) if value is not None]
        return Batch(f"{part:02x}{batch}", kept)

    async def _sessions(self, names: Sequence[bytes]) -> list[bytes | None]:
        found = await asyncio.gather(*(self._execute("session", _key(name), name) for name in names))
        return [rows[0].closed if rows else None for rows in found]

    async def count(self) -> int:
        """Entries of the schedule: every record has one."""
        found = await asyncio.gather(*(self._execute("count", part) for part in range(PARTS)))
        return sum(rows[0][0] for rows in found)

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.to_thread(self._cluster.shutdown)

    async def _applied(self, name: str, *values: Any) -> bool:
        return bool((await self._execute(name, *values))[0][0])

    async def _execute(self, name: str, *values: Any) -> list[Any]:
        return await self._wait(self._statements[name], values)

    async def _wait(self, statement: Any, values: Sequence[Any] | None) -> list[Any]:
        """The rows; the driver answers in a thread of its own."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Any]] = loop.create_future()

        def tell(rows: list[Any] | None, error: Exception | None) -> None:
            if not done.done():
                done.set_exception(error) if error else done.set_result(rows or [])

        def later(rows: list[Any] | None, error: Exception | None = None) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(tell, rows, error)

        try:
            future = self._session.execute_async(statement, values)
            future.add_callbacks(later, lambda error: later(None, error))
            return await done
        except self._errors as error:
            raise StoreError(f"Cassandra: {type(error).__name__}: {error}") from error


def _lying(rows: Sequence[Any]) -> Lying | None:
    if not rows or rows[0].stamp is None:
        return None
    return Lying(rows[0].stamp, rows[0].goes_to or NOWHERE, rows[0].value)


def _part(key: bytes) -> int:
    return key[0] % PARTS


def _key(name: bytes) -> bytes:
    """The record's key, with which the name of a session begins."""
    return name[:KEY_BYTES]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _parsed(place: str) -> tuple[list[str], int, str, Any]:
    """Hosts, port, keyspace and login of `//user:password@host,host:port/keyspace`."""
    from cassandra.auth import PlainTextAuthProvider  # noqa: PLC0415

    whole = urlsplit(f"cassandra:{place}")
    login, _, network = whole.netloc.rpartition("@")
    hosts, _, port = network.partition(":")
    keyspace = whole.path.strip("/")
    if not hosts or not port.isdigit() or not keyspace.isidentifier():
        raise SettingsError(
            "store.url: expected cassandra://host,host:port/keyspace, such as cassandra://127.0.0.1:9042/lotse"
        )
    user, _, password = login.partition(":")
    provider = PlainTextAuthProvider(unquote(user), unquote(password)) if login else None
    return hosts.split(","), int(port), keyspace, provider
