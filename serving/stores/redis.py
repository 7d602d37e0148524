"""Redis, one server or a cluster: a record under a key, with its schedule and what is closed in the same slot.

`redis://host:port/0`, `rediss://` for TLS, `redis+cluster://host:port` for a cluster. Each write is a script that
compares the record's stamp first, so several service machines share one store. How durable an acknowledged event is,
is the server's configuration: `appendonly yes` with `appendfsync everysec` survives the end of the server's process.

The visitors' pseudonyms fall into 64 parts, each in one slot of a cluster. Keys of part b, two hex digits:
`<prefix>:{b}:r:<key>` a record, `:due` the schedule (sorted set), `:closed` (hash by session), `:batches` (sorted set
by the end of the lease), `:b:<batch>` (hash by session).
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Final

from serving.settings import StoreSettings
from serving.stores import Batch, Closed, Entry, StoreError
from serving.stores.optimistic import STAMP_BYTES, Lying, OptimisticStore, Swap

# Keys, of each of 64 parts, and what is in them.
HELD: Final = {
    "{prefix}:{{part}}:r:*": "the current session of each visitor, by pseudonym, with consent what is known of earlier "
    "ones; requests sent again",
    "{prefix}:{{part}}:due": "when which record is to be looked at",
    "{prefix}:{{part}}:closed": "sessions that are over and wait to be handed on",
    "{prefix}:{{part}}:batches": "which worker hands on what, and until when",
    "{prefix}:{{part}}:b:*": "sessions that a worker is handing on",
}
PARTS: Final = 64
_RETRIES: Final = 2
_RETRY_SECONDS: Final = 0.01
_SWAP: Final = """
local lies = redis.call('GET', KEYS[1])
local stamp = lies and string.sub(lies, 1, 8) or ''
if stamp ~= ARGV[1] then return lies or '' end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2]) end
if ARGV[3] ~= '' then redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4])
elseif ARGV[2] == '' or ARGV[5] ~= '' then redis.call('ZREM', KEYS[2], ARGV[4]) end
for i = 6, #ARGV, 2 do redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
return 1
"""
_CLAIM: Final = """
local old = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[2], 'LIMIT', 0, 1)
if old[1] then
  redis.call('ZADD', KEYS[2], ARGV[3], old[1])
  return {old[1], redis.call('HGETALL', ARGV[5] .. old[1])}
end
local found = redis.call('HRANDFIELD', KEYS[1], ARGV[1], 'WITHVALUES')
if #found == 0 then return {} end
for i = 1, #found, 2 do
  redis.call('HDEL', KEYS[1], found[i])
  redis.call('HSET', ARGV[5] .. ARGV[4], found[i], found[i + 1])
end
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4])
return {ARGV[4], found}
"""


class RedisStore(OptimisticStore):
    """Session records in Redis."""

    def __init__(self, place: str, settings: StoreSettings, scheme: str = "redis") -> None:
        super().__init__(settings.remembered)
        try:
            import redis.asyncio as library  # noqa: PLC0415
            from redis.asyncio.cluster import RedisCluster  # noqa: PLC0415
            from redis.asyncio.retry import Retry  # noqa: PLC0415
            from redis.backoff import ExponentialWithJitterBackoff  # noqa: PLC0415
            from redis.exceptions import RedisClusterException  # noqa: PLC0415
        except ImportError as error:
            raise ImportError("a store in Redis needs: pip install 'lotse[redis]'") from error
        url = f"{scheme}:{place}"
        common: dict[str, Any] = {
            "socket_timeout": settings.timeout_seconds,
            "socket_connect_timeout": settings.timeout_seconds,
            "socket_keepalive": True,
            # a connection that is broken is noticed by the first who uses it, and a new one made; more waiting is for
            # the deadline
            "retry": Retry(ExponentialWithJitterBackoff(base=_RETRY_SECONDS, cap=settings.timeout_seconds), _RETRIES),
        }
        self._clustered = scheme.endswith("+cluster")
        if self._clustered:
            self._client: Any = RedisCluster.from_url(url.replace("+cluster", "", 1), **common)
        else:
            self._client = library.Redis.from_url(url, **common)
        # no RedisError: a cluster of which no node answers; and, up to redis-py 8.1, a connection that is closed while
        # it is written to (its issue 4287)
        others = (RedisClusterException, AttributeError, TypeError)
        self._errors: tuple[type[Exception], ...] = (library.RedisError, OSError, *others)
        self._prefix = settings.prefix
        self._parts = [f"{self._prefix}:{{{part:02x}}}" for part in range(PARTS)]
        self._swap, self._claim = self._client.register_script(_SWAP), self._client.register_script(_CLAIM)

    async def fetch(self, keys: Sequence[bytes]) -> list[Lying | None]:
        """One MGET, in a cluster one GET a record at the same time."""
        names = [self._record(key) for key in keys]
        if self._clustered:
            found = await self._all(self._client.get(name) for name in names)
        else:
            found = await self._one(self._client.mget(names))
        return [_parsed(blob) for blob in found]

    async def swap(self, swaps: Sequence[Swap]) -> list[tuple[bool, Lying | None]]:
        """One script a record, all of them in one pipeline."""
        calls = [self._arguments(swap) for swap in swaps]
        if self._clustered or len(calls) == 1:
            answers = await self._all(self._swap(keys=keys, args=args) for keys, args in calls)
        else:
            pipeline = self._client.pipeline(transaction=False)
            for keys, args in calls:
                await self._swap(keys=keys, args=args, client=pipeline)
            answers = await self._one(pipeline.execute())
        return [(True, None) if answer == 1 else (False, _parsed(answer)) for answer in answers]

    def _arguments(self, swap: Swap) -> tuple[list[bytes | str], list[bytes | str | int]]:
        part = self._part(swap.key)
        blob = b"" if swap.lying is None else _blob(swap.lying)
        due, entry = ("" if swap.due_ms is None else swap.due_ms), ("" if swap.entry is None else "1")
        args: list[bytes | str | int] = [swap.stamp or b"", blob, due, swap.key, entry]
        for name, value in swap.closed:
            args += [name, value]
        return [self._record(swap.key), f"{part}:due", f"{part}:closed"], args

    async def waiting(self, key: bytes) -> Sequence[Closed]:
        """Sessions of a record, looked for in all of its part."""
        found: list[Closed] = []
        for table, names in (await self._names(key)).items():
            values = await self._one(self._client.hmget(table, names))
            found += [Closed(*pair) for pair in zip(names, values, strict=True) if pair[1] is not None]
        return found

    async def drop(self, key: bytes) -> None:
        """Forget them."""
        for table, names in (await self._names(key)).items():
            await self._one(self._client.hdel(table, *names))

    async def _names(self, key: bytes) -> dict[str, list[bytes]]:
        part = self._part(key)
        batches = await self._one(self._client.zrange(f"{part}:batches", 0, -1))
        tables = [f"{part}:closed", *(f"{part}:b:{batch.decode()}" for batch in batches)]
        found = {table: await self._one(self._client.hkeys(table)) for table in tables}
        names = {table: [name for name in each if name.startswith(key)] for table, each in found.items()}
        return {table: each for table, each in names.items() if each}

    async def due(self, now_ms: int, limit: int) -> Sequence[Entry]:
        """The earliest of some parts, other ones every time, so that workers do not all look at the same."""
        found: list[Entry] = []
        for part in random.sample(self._parts, PARTS):
            rows = await self._one(
                self._client.zrangebyscore(f"{part}:due", "-inf", now_ms, start=0, num=limit, withscores=True)
            )
            found += [Entry(int(score), key) for key, score in rows]
            if len(found) >= limit:
                break
        return found

    async def claim(self, limit: int, now_ms: int, lease_ms: int) -> Batch | None:
        """A batch of one part."""
        for part in random.sample(self._parts, PARTS):
            name, prefix = uuid.uuid4().hex, f"{part}:b:"
            answer = await self._one(
                self._claim(
                    keys=[f"{part}:closed", f"{part}:batches"], args=[limit, now_ms, now_ms + lease_ms, name, prefix]
                )
            )
            if answer:
                batch, pairs = answer
                sessions = [Closed(*pair) for pair in zip(pairs[::2], pairs[1::2], strict=True)]
                return Batch(f"{part[-3:-1]}{batch.decode()}", sessions)
        return None

    async def settle(self, name: str) -> None:
        """Forget a batch; its name begins with its part."""
        part, batch = f"{self._prefix}:{{{name[:2]}}}", name[2:]
        await self._one(self._client.delete(f"{part}:b:{batch}"))
        await self._one(self._client.zrem(f"{part}:batches", batch))

    async def count(self) -> int:
        """Scheduled records: every record is."""
        return sum(await self._all(self._client.zcard(f"{part}:due") for part in self._parts))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _part(self, key: bytes) -> str:
        return self._parts[key[0] % PARTS]

    def _record(self, key: bytes) -> bytes:
        return f"{self._part(key)}:r:".encode() + key

    async def _one(self, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except self._errors as error:
            raise StoreError(f"Redis: {type(error).__name__}: {error}") from error

    async def _all(self, calls: Iterable[Awaitable[Any]]) -> list[Any]:
        return await self._one(asyncio.gather(*calls))


def _blob(lying: Lying) -> bytes:
    return lying.stamp + bytes([len(lying.to)]) + lying.to + lying.value


def _parsed(blob: bytes | None) -> Lying | None:
    if not blob:
        return None
    start = STAMP_BYTES + 1 + blob[STAMP_BYTES]
    return Lying(blob[:STAMP_BYTES], blob[STAMP_BYTES + 1 : start], blob[start:])


def cluster(place: str, settings: StoreSettings) -> RedisStore:
    """The store of `redis+cluster://`."""
    return RedisStore(place, settings, "redis+cluster")


def encrypted(place: str, settings: StoreSettings) -> RedisStore:
    """The store of `rediss://`."""
    return RedisStore(place, settings, "rediss")
