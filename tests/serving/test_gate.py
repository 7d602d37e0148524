"""The gate by itself: limits per key and per address, and what it takes for a client's address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serving.gate import Gate
from serving.keys import KeyFile, Keys
from serving.limits import Limit
from serving.problems import Problem
from serving.settings import KeySettings, LimitSettings

OUTSIDE = "203.0.113.7"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def gate(folder: Path, clock: Clock | None = None, workers: int = 1, required: Any = False, **limits: Any) -> Gate:
    made = Gate(Keys(KeyFile(folder)), KeySettings(required=required), LimitSettings(**limits), workers)
    made.clock = clock or Clock()
    return made


def scope(client: str = OUTSIDE, key: str = "", server: str = "192.0.2.1", **headers: str) -> dict[str, Any]:
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    sent += [(b"authorization", b"Bearer " + key.encode())] if key else []
    return {
        "path": "/v1/events", "method": "POST", "query_string": b"", "headers": sent,
        "client": (client, 50_000), "server": (server, 3000),
    }  # fmt: skip


def refused(gate: Gate, request: dict[str, Any]) -> Problem:
    with pytest.raises(Problem) as found:
        gate.admit(request)
    return found.value


def admitted(gate: Gate, request: dict[str, Any], most: int = 100) -> int:
    """How many requests come in before one is refused."""
    for count in range(most):
        try:
            gate.admit(request)
        except Problem:
            return count
    return most


def test_a_network_has_its_rate_and_its_burst(tmp_path: Path) -> None:
    clock = Clock()
    limited = gate(tmp_path, clock, address_events_per_second=10, burst_seconds=2)
    assert admitted(limited, scope()) == 20
    problem = refused(limited, scope())
    assert problem.status == 429 and dict(problem.headers) == {b"retry-after": b"1"}
    assert admitted(limited, scope("203.0.113.250")) == 0  # the same /24
    assert admitted(limited, scope("203.0.114.7")) == 20
    clock.now += 0.5
    assert admitted(limited, scope()) == 5
    clock.now += 60
    assert admitted(limited, scope()) == 20


def test_a_network_of_ipv6_is_a_48(tmp_path: Path) -> None:
    limited = gate(tmp_path, address_events_per_second=1, burst_seconds=3)
    assert admitted(limited, scope("2001:db8:1::1")) == 3
    assert admitted(limited, scope("2001:db8:1:ffff::2")) == 0
    assert admitted(limited, scope("2001:db8:2::1")) == 3
    assert admitted(limited, scope("::ffff:203.0.113.9")) == 3
    assert admitted(limited, scope("203.0.113.8")) == 0  # an IPv4 address, however it is written


def test_this_machine_and_secret_keys_have_no_address_limit(tmp_path: Path) -> None:
    _, secret = KeyFile(tmp_path).create("secret", "server")
    _, public = KeyFile(tmp_path).create("public", "shop")
    limited = gate(tmp_path, required="auto", address_events_per_second=1, burst_seconds=1)
    assert admitted(limited, scope(key=secret)) == 100
    assert admitted(limited, scope("127.0.0.1", key=public)) == admitted(limited, scope("::1", key=public)) == 100
    assert admitted(limited, scope(key=public)) == 1


def test_guessing_keys_is_limited(tmp_path: Path) -> None:
    KeyFile(tmp_path).create("secret", "server")
    limited = gate(tmp_path, required=True, address_events_per_second=1, burst_seconds=5)
    statuses = [refused(limited, scope(key="guess")).status for _ in range(8)]
    assert statuses == [401] * 5 + [429] * 3


def test_a_key_has_its_rate_and_a_batch_counts_its_events(tmp_path: Path) -> None:
    clock = Clock()
    _, secret = KeyFile(tmp_path).create("secret", "server")
    _, other = KeyFile(tmp_path).create("secret", "another")
    limited = gate(tmp_path, clock, key_events_per_second=100, burst_seconds=1)
    limited.admit(scope(key=secret)).brought(300)
    assert refused(limited, scope(key=secret)).status == 429
    assert admitted(limited, scope(key=other)) == 100
    clock.now += 2.0
    assert refused(limited, scope(key=secret)).status == 429
    clock.now += 0.5
    assert admitted(limited, scope(key=secret)) == 50


def test_workers_share_a_limit(tmp_path: Path) -> None:
    assert admitted(gate(tmp_path, workers=4, address_events_per_second=40, burst_seconds=1), scope()) == 10


def test_only_a_trusted_proxy_names_the_client(tmp_path: Path) -> None:
    limits = {"address_events_per_second": 1, "burst_seconds": 1}
    plain = gate(tmp_path, **limits)
    assert admitted(plain, scope(x_forwarded_for="198.51.100.1")) == 1
    assert admitted(plain, scope(x_forwarded_for="198.51.101.1")) == 0  # made up: it is the same client
    behind = gate(tmp_path, trusted_proxies=("10.0.0.0/8",), **limits)
    assert admitted(behind, scope("10.1.1.1", x_forwarded_for="198.51.100.1")) == 1
    assert admitted(behind, scope("10.1.1.1", x_forwarded_for="198.51.101.1")) == 1
    # what the client itself wrote stands before what the proxies added
    assert admitted(behind, scope("10.1.1.1", x_forwarded_for="192.0.2.55, 198.51.100.1, 10.2.2.2")) == 0
    assert admitted(behind, scope(x_forwarded_for="192.0.2.99")) == 1
    assert admitted(behind, scope("10.1.1.1", x_forwarded_for="nonsense")) == 100


def test_without_keys_only_this_machine_may_ask(tmp_path: Path) -> None:
    alone = gate(tmp_path, required="auto")
    alone.admit(scope("127.0.0.1", server="127.0.0.1"))
    alone.admit(scope("::1", server="::1"))
    problem = refused(alone, scope())
    assert problem.status == 401 and "lotse keys create" in problem.document["detail"]
    gate(tmp_path, required=False).admit(scope())


def test_preflights_and_health_need_no_key(tmp_path: Path) -> None:
    KeyFile(tmp_path).create("secret", "server")
    closed = gate(tmp_path, required="auto")
    closed.admit({**scope(), "method": "OPTIONS"})
    closed.admit({**scope(), "path": "/readyz", "method": "GET"})
    assert refused(closed, scope()).status == 401
    assert refused(closed, {**scope(authorization="Basic abc")}).status == 401


def test_a_webhook_needs_no_key_but_has_its_networks_limit(tmp_path: Path) -> None:
    """Its signature is checked when its body is there."""
    _, public = KeyFile(tmp_path).create("public", "shop")
    closed = gate(tmp_path, required="auto", address_events_per_second=1, burst_seconds=5)
    assert admitted(closed, {**scope(), "path": "/v1/models/refresh"}) == 5
    assert refused(closed, {**scope("192.0.2.9", key=public), "path": "/v1/models/refresh"}).status == 403
    assert refused(closed, {**scope("192.0.2.9"), "path": "/v1/models/refreshed"}).status == 401


def test_a_limit_forgets_what_was_not_used_for_longest() -> None:
    limit = Limit(per_second=1, burst=1, names=100)
    assert limit.take("kept", 0.0) == 0
    for number in range(1_000):
        limit.take(number, 0.0)
        assert limit.take("kept", 0.0) > 0
        assert len(limit) <= 100
    assert limit.take(0, 0.0) == 0  # forgotten


def test_addresses_are_hashed_with_a_key_that_changes(tmp_path: Path) -> None:
    clock = Clock()
    limited = gate(tmp_path, clock, address_events_per_second=0.001, burst_seconds=1)
    held: list[object] = []
    for _ in range(2):
        admission = limited.admit(scope())
        held += [name for _, name in admission._names]
        clock.now += 3_601
    assert len(set(held)) == 2 and all(isinstance(name, int) for name in held)
