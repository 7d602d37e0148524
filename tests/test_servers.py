"""The servers that other tests start: real ones, which may be killed, paused and started again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cassandra import OperationTimedOut
from cassandra.cluster import Cluster, Session
from redis import ConnectionError as Unreachable
from redis import Redis, RedisCluster
from redis import TimeoutError as TooSlow
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.cassandra_server import KEYSPACE, CassandraServer, cassandra_server
from tests.redis_server import RedisServer, redis_cluster, redis_server
from tests.server_process import HOST


def client(server: RedisServer) -> Redis:
    """One that says at once what went wrong."""
    return Redis.from_url(server.url, socket_timeout=0.3, retry=Retry(NoBackoff(), 0), decode_responses=True)


def test_a_redis_that_was_killed_starts_again_empty() -> None:
    with redis_server() as server, client(server) as redis:
        redis.set("visitor", "jane")
        server.kill()
        with pytest.raises(Unreachable):
            redis.get("visitor")
        server.start()
        assert redis.get("visitor") is None
        redis.set("visitor", "john")
        assert redis.get("visitor") == "john"


def test_a_redis_with_a_log_that_was_killed_knows_what_it_acknowledged() -> None:
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server, client(server) as redis:
        redis.set("visitor", "jane")
        server.kill()
        server.start()
        assert redis.get("visitor") == "jane"


def test_a_paused_redis_keeps_the_connection_and_answers_nothing() -> None:
    with redis_server() as server, client(server) as redis:
        redis.set("visitor", "jane")
        server.pause()
        with pytest.raises(TooSlow):
            redis.get("visitor")
        server.resume()
        assert redis.get("visitor") == "jane"


def test_a_paused_redis_is_gone_at_the_end() -> None:
    with redis_server() as server:
        server.pause()
    assert server.process
    assert server.process.poll() is not None
    assert not server.folder.exists()


def test_every_node_of_a_redis_cluster_holds_its_share() -> None:
    with redis_cluster() as cluster, RedisCluster.from_url(cluster.url, decode_responses=True) as redis:
        keys = {redis.get_node_from_key(f"visitor-{n}").port: f"visitor-{n}" for n in range(30)}
        assert keys.keys() == {node.port for node in cluster.nodes}
        for key in keys.values():
            redis.set(key, f"value of {key}")
        for port, key in keys.items():
            assert redis.get(key) == f"value of {key}"
            with Redis(host=HOST, port=port, decode_responses=True) as node:
                assert node.keys() == [key]


@pytest.fixture(scope="module")
def cassandra() -> Iterator[CassandraServer]:
    """A server that loses nothing when it is killed, with a table of sessions and their events."""
    with cassandra_server(commitlog_sync="batch") as server:
        with connected(server) as session:
            replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}"
            session.execute(f"CREATE KEYSPACE {KEYSPACE} WITH replication = {replication}")
            session.execute(
                f"CREATE TABLE {KEYSPACE}.sessions"
                " (visitor text, number int, version int static, event text, PRIMARY KEY (visitor, number))"
            )
        yield server


@contextmanager
def connected(server: CassandraServer) -> Iterator[Session]:
    with Cluster([HOST], port=server.port) as cluster:
        yield cluster.connect()


@pytest.mark.slow
def test_cassandra_applies_a_condition_once(cassandra: CassandraServer) -> None:
    with connected(cassandra) as session:
        session.set_keyspace(KEYSPACE)
        insert = "INSERT INTO sessions (visitor, version) VALUES ('jane', 0) IF NOT EXISTS"
        assert session.execute(insert).was_applied
        assert not session.execute(insert).was_applied
        update = session.prepare("UPDATE sessions SET version = ? WHERE visitor = 'jane' IF version = ?")
        assert session.execute(update, (1, 0)).was_applied
        refused = session.execute(update, (1, 0))
        assert not refused.was_applied
        assert refused.one().version == 1  # it says what stands there


@pytest.mark.slow
def test_cassandra_applies_a_batch_on_one_condition_whole_or_not_at_all(cassandra: CassandraServer) -> None:
    with connected(cassandra) as session:
        session.set_keyspace(KEYSPACE)
        session.execute("INSERT INTO sessions (visitor, version) VALUES ('john', 0)")
        append = session.prepare(
            "BEGIN BATCH"
            " UPDATE sessions SET version = ? WHERE visitor = 'john' IF version = ?;"
            " INSERT INTO sessions (visitor, number, event) VALUES ('john', ?, ?);"
            " APPLY BATCH"
        )
        assert session.execute(append, (1, 0, 1, "page_view")).was_applied
        assert not session.execute(append, (1, 0, 2, "purchase")).was_applied
        rows = session.execute("SELECT version, number, event FROM sessions WHERE visitor = 'john'").all()
        assert [tuple(row) for row in rows] == [(1, 1, "page_view")]


@pytest.mark.slow
def test_a_cassandra_that_was_paused_or_killed_knows_what_it_acknowledged(cassandra: CassandraServer) -> None:
    read = f"SELECT event FROM {KEYSPACE}.sessions WHERE visitor = 'jim' AND number = 1"
    with connected(cassandra) as session:
        session.execute(f"INSERT INTO {KEYSPACE}.sessions (visitor, number, event) VALUES ('jim', 1, 'page_view')")
        cassandra.pause()
        with pytest.raises(OperationTimedOut):
            session.execute(read, timeout=0.5)
        cassandra.resume()
        assert session.execute(read).one().event == "page_view"
    cassandra.kill()
    cassandra.start()
    with connected(cassandra) as session:
        assert session.execute(read).one().event == "page_view"
