"""Servers that stores are tried on, one of each for a file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cassandra_server import cassandra_server, make_keyspace
from tests.redis_server import redis_cluster, redis_server


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with redis_server() as server:
        yield server.url


@pytest.fixture(scope="module")
def redis_nodes() -> Iterator[str]:
    with redis_cluster() as nodes:
        yield nodes.url.replace("redis://", "redis+cluster://").removesuffix("/0")


@pytest.fixture(scope="module")
def cassandra() -> Iterator[str]:
    with cassandra_server(commitlog_sync="batch") as server:
        make_keyspace(server.port)
        yield server.url
