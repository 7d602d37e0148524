"""The servers that other tests start: real ones, which may be killed, paused and started again."""

from __future__ import annotations

import pytest
from redis import ConnectionError as Unreachable
from redis import Redis, RedisCluster
from redis import TimeoutError as TooSlow
from redis.backoff import NoBackoff
from redis.retry import Retry

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
