"""Canaries: names, addresses, numbers of cards, planted in every field of every request, are found nowhere.

Every captured request of every installed tracker is sent again and again, each time with a canary in another of its
fields, and so is the native API's. Afterwards everything on the disk, every answer, the metrics and the memory of the
service's processes is searched. Freed memory is not cleared by Python, so the service runs with an allocator that
writes over what is freed (glibc): what is found then is alive.

Its models are trained from a log with canaries in every field, so the registry and what MLflow keeps are searched, too.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

import httpx
import pyarrow.parquet as pq
import pytest

from serving.intake import EventIn
from tests.serving.in_process import client, engine_of, start
from tests.shared import SHARED
from tests.workspace import Service, lotse, wait_until, workspace

EMAIL: Final = "quilla.canary@nest.example"
NAME: Final = "Quilla Feathercanary"
IPV4: Final = "203.0.113.197"
IPV6: Final = "2001:db8:ca9a:7::beef"
CARD: Final = "4929123456789017"
SPACED: Final = "4929 1234 5678 9017"
AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64; CanaryBuild/77.31.5) AppleWebKit/537.36 Chrome/156.0.0.0 Safari/537.36"
TOKEN: Final = "canarytoken9f8e7d6c5b4a"
CANARIES: Final = (EMAIL, NAME, IPV4, IPV6, CARD, SPACED, f"https://www.shop.example/?reset={TOKEN}", AGENT)
# Who is told of segments and does not listen.
NOBODY: Final = {
    "webhook": 'url="http://127.0.0.1:9/",secret="env:CANARY_SECRET"',
    "segment": 'endpoint="http://127.0.0.1:9/",write_key="env:CANARY_SECRET"',
    "matomo": 'url="http://127.0.0.1:9/",site=1,dimensions={all=1}',
    "ga4": 'endpoint="http://127.0.0.1:9/",measurement_id="G-1",api_secret="env:CANARY_SECRET"',
}
_AROUND: Final = 80
_PART_BYTES: Final = 2**24
_MAPPED_BYTES: Final = 2**28
TRACKERS: Final = [point.name for point in entry_points(group="lotse.trackers")]


def _written(text: str) -> Iterator[bytes]:
    """How a text may be written: as it is, in other cases, escaped, as a name, in UTF-16, in base64 from anywhere."""
    for one in {text, text.lower(), text.upper(), quote(text), quote(text, safe="")}:
        yield one.encode()
    yield re.sub(r"[^a-z0-9]+", "_", text.lower()).encode()
    yield text.encode("utf-16-le")
    for before in range(3):
        # the characters at the ends hold bits of what stands beside
        yield base64.b64encode(b"\0" * before + text.encode())[(0, 2, 3)[before] : -4]


NEEDLES: Final = sorted(
    {
        needle
        for text in (EMAIL, NAME, IPV4, IPV6, CARD, SPACED, "CanaryBuild/77.31.5", TOKEN)
        for needle in _written(text)
    }
)


def found_in(content: bytes) -> list[bytes]:
    """Which canaries are in it, each with what stands around it."""
    places = [content.find(needle) for needle in NEEDLES]
    return [content[max(place - _AROUND, 0) : place + _AROUND] for place in places if place >= 0]


class Sent(NamedTuple):
    """A request to send."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


def captured(tracker: str = "") -> Iterator[Sent]:
    """Every captured request, or those of one tracker."""
    of = {"adobe": "alloy"}.get(tracker, tracker)
    for path in sorted((SHARED / "captures").glob(f"{of}*.jsonl")):
        for line in path.read_text().splitlines():
            one = json.loads(line)
            kept = ("content-type", "origin", "user-agent", "authorization", "sp-anonymous", "x-api-key")
            headers = {name: value for name, value in one["headers"].items() if name in kept}
            yield Sent(one["method"], one["path"], one["query"], headers, one["body"].encode())


def planted(sent: Sent) -> Iterator[Sent]:
    """The request with a canary in one field after the other: of the query, of the body, and of its headers."""
    canaries = _endless()
    for query in _in_pairs(sent.query, canaries):
        yield sent._replace(query=query)
    for body in _in_body(sent.body, canaries):
        yield sent._replace(body=body)
    for name in ("user-agent", "referer", "cookie", "authorization", "accept-language", "x-forwarded-for", "sec-ch-ua"):
        yield sent._replace(headers={**sent.headers, name: next(canaries)})
    yield sent._replace(headers={**sent.headers, "x-forwarded-for": IPV4, "user-agent": AGENT})
    yield sent._replace(headers={**sent.headers, "x-forwarded-for": f"{IPV6}, 10.0.0.1", "user-agent": AGENT})


def _endless() -> Iterator[str]:
    while True:
        yield from CANARIES


def _in_body(body: bytes, canaries: Iterator[str]) -> Iterator[bytes]:
    text = body.decode()
    boundary = re.match(r"--\S+\r\n", text)
    if boundary:  # multipart: the parts are JSON or text
        parts = re.split(r"(\r\n\r\n|\r\n--)", text)
        for place, part in enumerate(parts):
            if place and parts[place - 1] == "\r\n\r\n":
                for changed in _in_text(part, canaries):
                    yield "".join([*parts[:place], changed, *parts[place + 1 :]]).encode()
        return
    for changed in _in_text(text, canaries):
        yield changed.encode()


def _in_text(text: str, canaries: Iterator[str]) -> Iterator[str]:
    if not text:
        return
    try:
        content = json.loads(text)
    except ValueError:
        yield from _in_pairs(text, canaries)
        return
    for changed in _in_json(content, canaries):
        yield json.dumps(changed)


def _in_pairs(text: str, canaries: Iterator[str]) -> Iterator[str]:
    pairs = parse_qsl(text, keep_blank_values=True)
    for place, (name, value) in enumerate(pairs):
        for changed in _in_leaf(value, canaries):
            yield urlencode([*pairs[:place], (name, changed), *pairs[place + 1 :]])


def _in_json(content: Any, canaries: Iterator[str]) -> Iterator[Any]:
    if isinstance(content, dict):
        for name, value in content.items():
            for changed in _in_json(value, canaries):
                yield {**content, name: changed}
        yield {**content, "unknown": next(canaries)}
    elif isinstance(content, list):
        for place, value in enumerate(content):
            for changed in _in_json(value, canaries):
                yield [*content[:place], changed, *content[place + 1 :]]
    elif isinstance(content, str):
        yield from _in_leaf(content, canaries)
    else:
        yield next(canaries)
        yield int(CARD)


def _in_leaf(value: str, canaries: Iterator[str]) -> Iterator[str]:
    """A canary in place of a text, behind it, and in what is packed in it."""
    yield next(canaries)
    yield f"{value}?q={quote(next(canaries))}" if "://" in value else f"{value} {next(canaries)}"
    inner: Any = None
    with suppress(ValueError):
        inner = json.loads(value)
    if isinstance(inner, dict | list):
        for changed in _in_json(inner, canaries):
            yield json.dumps(changed)
        return
    with suppress(ValueError):
        inner = json.loads(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
    if isinstance(inner, dict | list):
        for changed in _in_json(inner, canaries):
            yield base64.urlsafe_b64encode(json.dumps(changed).encode()).decode().rstrip("=")


def native() -> Iterator[Sent]:
    """The API's own requests, a canary in one place after the other."""
    event = {"visitor": "v-1", "name": "view_item", "id": "e-1", "session": "s-1", "page": "/p/1", "item": "sku-1",
             "category": "shoes", "campaign": "spring", "price": 5, "currency": "EUR", "channel": "direct",
                 "referrer": "https://www.google.com/",
             "device": "desktop", "consent": ["measure"], "time": 1_795_486_000_000, "sent_at": 1_795_486_000_000,
             "declared": [1.0], "quantity": 1, "value": 1, "utc_offset": 60, "interactive": True}  # fmt: skip
    assert set(event) == set(EventIn.__struct_fields__)
    plain = Sent("POST", "/v1/events", "", {"content-type": "application/json"}, json.dumps(event).encode())
    for consent in (["measure"], ["measure", "link", "personalise"]):
        for canary in CANARIES:
            for name, value in event.items():
                put = [canary] if isinstance(value, list) else canary
                yield plain._replace(body=json.dumps({**event, "consent": consent, name: put}).encode())
    yield from planted(plain)
    for path in ("/readyz", "/", "/score"):  # BentoML's own
        yield from planted(Sent("GET", path, "", {}, b""))
    for canary in CANARIES:
        place = quote(canary, safe="")
        yield plain._replace(body=canary.encode())
        yield plain._replace(body=b"[" + plain.body + b"," + canary.encode() + b"]")
        yield plain._replace(headers={**plain.headers, "idempotency-key": place})
        yield plain._replace(query=f"token={place}")
        for path in (f"/v1/sessions/{place}", f"/v1/{place}", f"/{place}", f"/api/{place}"):
            yield Sent("GET", path, "", {}, b"")
        yield Sent("GET", "/v1/visitors/me", f"token={place}", {}, b"")
        for path in ("/v1/visitors/export", "/v1/visitors/me/decisions", "/v1/score", "/v1/models/refresh"):
            yield Sent("POST", path, "", {"content-type": "application/json"}, json.dumps({"visitor": canary}).encode())


def history(path: Path, visits: int = 1_500) -> Path:
    """A web server's log of twenty days with a canary in every field of its lines."""
    drawn, canaries, lines = random.Random(1), _endless(), list[tuple[datetime, str]]()
    for visit in range(visits):
        at = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=drawn.randrange(20 * 86_400))
        address = (IPV4, IPV6, f"198.51.{visit // 250}.{visit % 250}")[visit % 3]
        for _ in range(drawn.randrange(1, 9)):
            # a name has spaces where the log has fields
            user, page, campaign, came_from = (quote(next(canaries), safe="") for _ in range(4))
            what = f"/p/{drawn.randrange(30)}" if drawn.random() < 0.7 else f"/p/{page}"
            when = f"{at:%d/%b/%Y:%H:%M:%S} +0000"
            asked = f"GET {what}?utm_campaign={campaign} HTTP/1.1"
            referrer = f"https://www.google.com/?q={came_from}"
            lines.append((at, f'{address} - {user} [{when}] "{asked}" 200 512 "{referrer}" "{AGENT} {visit}"'))
            at += timedelta(seconds=drawn.randrange(2, 200))
    path.write_text("".join(f"{line}\n" for _, line in sorted(lines)))
    return path


def trained_from(log: Path, folder: Path) -> bytes:
    """Have a model in a folder's registry that was trained from a log; returns what was printed."""
    workspace(folder)
    done = lotse(folder, "train", "--source", "access_log", "--events", str(log), "--head", "exit",
                 "--set", "lightgbm.num_boost_round=20")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return (done.stdout + done.stderr).encode()


def send(http: httpx.Client, sent: Sent) -> httpx.Response:
    url = sent.path + (f"?{sent.query}" if sent.query else "")
    headers = {name: value.encode("latin-1", "replace") for name, value in sent.headers.items()}
    return http.request(sent.method, url, headers=headers, content=sent.body)


def answered(answer: httpx.Response) -> bytes:
    """All that an answer says. The page's origin is repeated by CORS, as it must be."""
    headers = [(name, value) for name, value in answer.headers.items() if name != "access-control-allow-headers"]
    return repr(headers).encode() + answer.content


def on_disk(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder; what is compressed as it reads."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()
            if path.suffix == ".parquet":
                yield str(path), repr(pq.ParquetFile(path).read().to_pylist()).encode()


def memory_of(pid: int) -> Iterator[tuple[str, bytes]]:
    """What a process has in memory that can be written to: heap, stacks, and maps of files; in parts that overlap."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, _, _, _, *name = line.split(maxsplit=5)
            begin, end = (int(each, 16) for each in span.split("-"))
            if "w" not in rights and not "".join(name).endswith(".mdb"):
                continue
            # a store's file is sparse, and its map is much longer
            for start in range(begin, min(end, begin + _MAPPED_BYTES), _PART_BYTES):
                memory.seek(start)
                with suppress(OSError):
                    yield f"{pid} {' '.join(name) or 'heap'}", memory.read(min(_PART_BYTES + 200, end - start))


def search(places: Iterable[tuple[str, bytes]]) -> tuple[Counter[str], list[tuple[str, list[bytes]]]]:
    """How much was searched, and where something was found."""
    searched: Counter[str] = Counter()
    told = []
    for place, content in places:
        searched.update({"files": 1, "bytes": len(content), "maps of the store": place.endswith("data.mdb")})
        if found := found_in(content):
            told.append((place, found))
    return searched, told


def told_others(http: httpx.Client) -> None:
    """Requests of visitors whom others are told of, by ids that are canaries."""
    agent = {"user-agent": AGENT}
    granted = {"consent": {"categoryPreferences": {"Analytics": True, "Functional": True}}, "userAgent": AGENT}
    call = {"anonymousId": EMAIL, "event": "Product Viewed", "context": granted}
    view = {"idsite": "1", "rec": "1", "url": "/", "consent": "1", "_id": CARD}
    hit = {"v": "2", "tid": "G-1", "cid": EMAIL, "sid": CARD, "en": "page_view", "gcs": "G111", "gcd": "13r3r3r3r5l1"}
    answers = [
        http.post("/v1/t", json=call),
        http.get("/matomo.php", params=view, headers=agent),
        http.post("/g/collect", params=hit, headers=agent),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 204]


def wash(service: Service) -> None:
    """Ordinary requests, so that buffers that are kept and used again hold something else; and connections end."""
    events = [{"visitor": f"wash-{number}", "name": "page_view", "page": "/wash"} for number in range(1_000)]
    for _ in range(4):
        with service.client() as http:
            for _ in range(3):
                assert http.post("/v1/events", json=events).status_code == 200
            for _ in range(30):
                assert http.post("/v1/events", json={"visitor": 5}).status_code == 422
                http.get("/metrics")


@pytest.mark.slow
def test_canaries_are_found_nowhere(
    own_service: Callable[..., Service], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    log = history(tmp_path_factory.mktemp("history") / "access.log")
    assert len(found_in(log.read_bytes())) > 5
    assert found_in(trained_from(log, tmp_path)) == []
    monkeypatch.setenv("CANARY_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLwSwMfKQ9r8GKYqr")
    monkeypatch.setenv("PYTHONMALLOC", "malloc")
    # what is freed for the next of the same size goes past the allocator's own wiping
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.perturb=90:glibc.malloc.tcache_count=0")
    trackers = ", ".join(f'"{name}"' for name in TRACKERS)
    service = own_service(
        f"collect.trackers=[{trackers}]", 'limits.trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"]',
        "limits.address_events_per_second=0", "decisions.sample=1", "logs.sample=1", 'logs.level="debug"',
        "store.closed_seconds=0.3", "store.sweep_seconds=0.3", "keys.required=false", "store.size_gib=0.05",
        "models.uri=sqlite:///lotse-data/mlflow.db", "models.cache=lotse-data/models",
        'outbound.segments.all={head="exit",threshold=0.0001}', "outbound.deadline_seconds=1",
        'collect.options.matomo.consent=["measure", "link", "personalise"]',
        *(f'outbound.targets.{name}={{kind="{name}",{options}}}' for name, options in NOBODY.items()),
    )  # fmt: skip
    told: list[tuple[str, list[bytes]]] = []
    with service.client() as http:
        known = [sent for sent in captured() if send(http, sent).status_code != 404]
        requests = [each for sent in known for each in planted(sent)] + list(native())
        for sent in requests:
            answer = send(http, sent)
            assert answer.status_code < 500, (sent, answer.text)
            if found := found_in(answered(answer)):
                told.append((f"{sent.method} {sent.path}: {answer.status_code} {answer.text[:200]}", found))
        # sessions end, so that they are handed on
        for name in ("a", "b"):
            for visitor in CANARIES:
                ended = {"visitor": visitor, "name": "page_view", "session": name, "item": visitor, "page": visitor}
                assert http.post("/v1/events", json=ended).status_code == 200
        told_others(http)
        lost = 'lotse_outbound_dropped_messages_total{reason="unreachable",target="%s"}'
        wait_until(lambda: all(lost % name in http.get("/metrics").text for name in NOBODY))
        metrics = http.get("/metrics").text
    assert told == []
    assert found_in(metrics.encode()) == []
    for name in TRACKERS:
        assert f'lotse_requests_total{{path="{name}"' in metrics, f"no request of {name} was sent: add its captures"
    data = service.folder / "lotse-data"
    wait_until(lambda: bool(list(data.glob("closed/day=*/*.parquet")) and list(data.glob("decisions/*.jsonl"))))
    wash(service)
    time.sleep(3)  # a second's caches, logs and files are written
    places = list(on_disk(service.folder))
    for what in ("mlflow.db", "/booster.txt", "/report.html", "/models/", ".parquet", ".jsonl"):
        assert any(what in place for place, _ in places), what
    searched, found = search(places)
    assert searched["files"] > 10 and found == []
    assert len(service.processes()) > 1
    searched, found = search(part for pid in service.processes() for part in memory_of(pid))
    assert searched["maps of the store"] > 1 and searched["bytes"] > 10**8
    assert found == []


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    for number, text in enumerate((EMAIL, f"x{NAME}", IPV6, SPACED)):
        for written in (text.encode(), text.encode("utf-16-le"), base64.b64encode(f"{'.' * number}{text}..".encode())):
            assert found_in(b"before" + written + b"after"), written
    assert not found_in(b"nothing of the kind, 4929, quilla, 203.0.113.1")
    body = json.dumps({"a": "x", "b": [{"c": base64.b64encode(b'{"d": "e"}').decode()}]})
    changed = list(_in_text(body, _endless()))
    assert len(changed) == 9 and all(json.loads(each) != json.loads(body) for each in changed)


def test_events_that_wait_for_the_store_hold_no_canary(tmp_path: Path) -> None:
    app = start(tmp_path, f"store.url=embedded:{tmp_path}/live", "store.size_gib=0.05", "store.spool_mib=8")

    async def run() -> None:
        engine = engine_of(app)
        engine.outage.active = True
        async with client(app) as http:
            for sent in native():
                if sent.path == "/v1/events":
                    await http.post("/v1/events", content=sent.body)
        assert next(iter(engine.outage.spools())).events > 50
        engine.outage.close()
        await engine.close()

    asyncio.run(run())
    assert list(tmp_path.glob("spool/*/data.mdb"))
    searched, found = search(on_disk(tmp_path))
    assert searched["files"] > 5 and found == []
