"""What a tracker's adapter takes for an event: `python -m benchmarks.collect [tracker ...]`.

Every captured request of a tracker's client that holds events is read and answered; beside it the native reading of
one event of `POST /v1/events`. What comes after (the contract's checks, fold, scores) is the same for all.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import entry_points
from statistics import median

from benchmarks.measure import report
from serving.collect import Refused
from serving.intake import Intake
from serving.requests import Answer
from tests.contracts.captured import CAPTURES, SHOP, Capture, captures, endpoint, read, tracker

# Captures are named by the client's package, some of which are called otherwise than the tracker.
CLIENTS = {"adobe": "alloy"}
ROUNDS, SECONDS = 7, 0.3
NATIVE = (
    b'{"visitor":"79ad93e49e3f3a55","name":"add_to_cart","id":"e4e54b86-292d-48d1-88fd-822d3f964339",'
    b'"page":"/category/shoes","item":"SKU-1","price":79.9,"quantity":2,"currency":"EUR","device":"desktop"}'
)


def per_call(call: Callable[[], object]) -> float:
    """Microseconds of the processor, the median of some rounds: the machine may be busy with others."""
    gc.collect()
    gc.disable()  # the service does nearly so
    call()
    begin, calls = time.process_time(), 0
    while time.process_time() - begin < SECONDS / 10:
        call()
        calls += 1
    calls *= 10
    found = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        for _ in range(calls):
            call()
        found.append((time.process_time() - begin) / calls * 1e6)
    return median(found)


def requests_of(name: str) -> list[Capture]:
    """Captured requests that an adapter makes events of."""
    files = sorted(CAPTURES.glob(f"{CLIENTS.get(name, name)}*.jsonl"))
    adapter = tracker(name)
    return [one for file in files for one in captures(file.stem) if read(adapter, one).events]


def cost(name: str) -> tuple[int, int, float]:
    """Requests, events, and microseconds an event."""
    adapter, found = tracker(name), requests_of(name)
    endpoints = [(endpoint(adapter, one.hit), one.hit) for one in found]
    answer = Answer(session="token", status="folded", events=2, scores={"bounce": 0.25, "exit": 0.5})
    events = sum(len(each.read(hit).events) for each, hit in endpoints)

    def all_of_them() -> None:
        for each, hit in endpoints:
            try:
                collected = each.read(hit)
                reply = each.answer(hit, collected, [answer] * len(collected.events))
            except Refused:
                continue
            assert not isinstance(reply, Awaitable)

    return len(found), events, per_call(all_of_them) / events


def main() -> None:
    """Print the table."""
    intake = Intake(SHOP, ("measure",), 10**9)
    native = per_call(lambda: intake.split(NATIVE))
    rows = [["POST /v1/events", "1", "1", f"{native:.1f}", ""]]
    for name in sys.argv[1:] or sorted(point.name for point in entry_points(group="lotse.trackers")):
        requests, events, us = cost(name)
        rows.append([name, str(requests), str(events), f"{us:.1f}", f"{us - native:+.1f}"])
    report("Reading and answering", ["tracker", "requests", "events", "us an event", "beyond native"], rows)


if __name__ == "__main__":
    main()
