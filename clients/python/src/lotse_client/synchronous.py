"""The synchronous client, made from `asynchronous.py` by `make_sync.py`."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import msgspec
from httpx_sse import ServerSentEvent, connect_sse
from tenacity import Retrying

from lotse_client import answers, calls
from lotse_client import experiments as configured
from lotse_client.errors import Refused
from lotse_client.events import Event
from lotse_client.sending import address, answer, backoff, headers_of, passes, request, retrying, unreachable
from lotse_client.streams import SESSION_EVENTS, Closed, Look, Refetch, Told

T = TypeVar("T")
# The service tells something every 15 s (stream.heartbeat_seconds), if only that it is there.
QUIET_SECONDS = 60.0


class Client:
    """Lotse's API, an operation a method; connections are kept open.

    url, key: as given, or `LOTSE_URL` and `LOTSE_KEY` of the environment. timeout_seconds: of each phase of a request.
    tries: how often at most a request is sent that has its effect once. verify: as httpx has it.

    Raises
    ------
    Refused
        The service refuses; `problem.detail` says what was found, what is expected, and what to do.
    Unreachable
        Nobody answered.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_seconds: float = 5.0,
        tries: int = 3,
        verify: bool | ssl.SSLContext = True,
    ) -> None:
        self._http = httpx.Client(
            base_url=address(url), headers=headers_of(key), timeout=timeout_seconds, verify=verify
        )
        self._timeout_seconds, self._tries = timeout_seconds, tries

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(self, call: calls.Call[T], *, request_id: str = "") -> T:
        """Any operation of `lotse_client.calls`; request_id: names the request in the service's log and problems."""
        for attempt in Retrying(**retrying(call, self._tries)):
            with attempt:
                try:
                    response = self._http.send(self._http.build_request(**request(call, request_id)))
                except httpx.HTTPError as error:
                    raise unreachable(error) from None
                return answer(call, response)
        raise AssertionError("tenacity raises or returns")

    def event(
        self,
        event: Event,
        *,
        explain: bool = False,
        flags: str | Sequence[str] = (),
        scores: bool = True,
        idempotency_key: str = "",
    ) -> answers.Answer:
        """Fold one event; see `events`."""
        (found,) = self.events([event], explain=explain, flags=flags, scores=scores, idempotency_key=idempotency_key)
        return found

    def events(
        self,
        events: Sequence[Event],
        *,
        explain: bool = False,
        flags: str | Sequence[str] = (),
        scores: bool = True,
        idempotency_key: str = "",
    ) -> list[answers.Answer]:
        """Fold events; answers in their order. Events without an id are given one, so that they count once.

        explain: what made each score. flags: "all", or keys. scores: without them the answer is status and count only.
        """
        return self.send(
            calls.events(events, explain=explain, flags=flags, scores=scores, idempotency_key=idempotency_key)
        )

    def session(self, token: str, *, explain: bool = False) -> answers.Answer:
        """A session scored as of now: idle time counts."""
        return self.send(calls.session(token, explain=explain))

    def stream(
        self, token: str, thresholds: Mapping[str, float] | Sequence[str] = (), *, last_event_id: str = ""
    ) -> Iterator[Told]:
        """What becomes of a session, until it is over: crossings of thresholds, idle moments. Broken streams go on.

        thresholds: by head, or such as "conversion:0.3", also several of a head.
        """
        for event in self._listen(lambda latest: calls.stream(token, thresholds, last_event_id=latest), last_event_id):
            kind = SESSION_EVENTS.get(event.event)
            if kind is None:
                continue
            told = msgspec.json.decode(event.data, type=kind)
            yield told
            if isinstance(told, Closed):
                return

    def score(self, rows: Sequence[calls.Row]) -> answers.RowScores:
        """Scores of feature vectors, each with every feature of `features`."""
        return self.send(calls.score(rows))

    def score_lines(self, rows: Iterable[calls.Row]) -> list[dict[str, float]]:
        """The same for many rows: of each its scores, in their order."""
        return self.send(calls.score_lines(rows))

    def score_arrow(self, table: bytes) -> bytes:
        """The same for an Arrow stream of record batches, answered by one with a column a head."""
        return self.send(calls.score_arrow(table))

    def features(self) -> answers.Description:
        """Heads, versions, feature names, and what keeps heads from scoring."""
        return self.send(calls.features())

    def refresh(self, webhook_secret: str, body: bytes = b"{}") -> answers.Asked:
        """Have the model registry asked now, signed as MLflow's webhooks are."""
        return self.send(calls.refresh(webhook_secret, body))

    def mine(self, token: str) -> answers.Held:
        """All that is held of the visitor with this session's token."""
        return self.send(calls.mine(token))

    def erase_mine(self, token: str) -> answers.Erased:
        """Erase it."""
        return self.send(calls.erase_mine(token))

    def decisions(self, token: str, *, automated: bool) -> answers.Decisions:
        """False: object to automated decisions; scores are the priors until True."""
        return self.send(calls.decisions(token, automated=automated))

    def export(self, visitor: str) -> answers.Held:
        """All that is held of a visitor, by the tracker's id."""
        return self.send(calls.export(visitor))

    def erase(self, visitor: str) -> answers.Erased:
        """Erase it."""
        return self.send(calls.erase(visitor))

    def flags(
        self,
        targeting_key: str,
        context: Mapping[str, Any] | None = None,
        *,
        if_none_match: str = "",
        flag_config_etag: str = "",
        flag_config_last_modified: str = "",
    ) -> answers.Flags:
        """All flags over OFREP; targeting_key: the session's token, with a secret key also a visitor's id.

        Raises
        ------
        NotModified
            They are what `if_none_match` names.
        """
        return self.send(
            calls.flags(
                targeting_key,
                context,
                if_none_match=if_none_match,
                flag_config_etag=flag_config_etag,
                flag_config_last_modified=flag_config_last_modified,
            )
        )

    def flag(self, key: str, targeting_key: str, context: Mapping[str, Any] | None = None) -> answers.Evaluated:
        """One flag over OFREP."""
        return self.send(calls.flag(key, targeting_key, context))

    def refetches(self, token: str, *, since: str = "", last_event_id: str = "") -> Iterator[Refetch]:
        """Told when a flag of the session may be another one, until the session is over. Broken streams go on."""
        for event in self._listen(
            lambda latest: calls.refetches(token, since=since, last_event_id=latest), last_event_id
        ):
            yield msgspec.json.decode(event.data, type=Refetch)

    def evaluate(self, attributes: Mapping[str, Any], *, client_key: str = "sdk") -> answers.SdkValues:
        """All flags as GrowthBook's remote evaluation has them; attributes: `id` is the session's token."""
        return self.send(calls.evaluate(attributes, client_key=client_key))

    def sdk_features(self, *, client_key: str = "sdk", if_none_match: str = "") -> answers.SdkFeatures:
        """Features for GrowthBook's SDKs that evaluate by themselves.

        Raises
        ------
        NotModified
            They are what `if_none_match` names.
        """
        return self.send(calls.sdk_features(client_key=client_key, if_none_match=if_none_match))

    def experiments(self, history: Sequence[str] = ()) -> configured.ExperimentsState:
        """What runs, what closed sessions have taught, which arms were stopped; history: whose to tell."""
        return self.send(calls.experiments(history))

    def configuration(self) -> configured.Running:
        """The configuration of flags and experiments that runs."""
        return self.send(calls.configuration())

    def replace(
        self, content: configured.Configuration, *, dry_run: bool = False, if_match: str = ""
    ) -> configured.Pushed:
        """Have another configuration run; if_match: only if this version runs."""
        return self.send(calls.replace(content, dry_run=dry_run, if_match=if_match))

    def change(self, patch: Mapping[str, Any], *, dry_run: bool = False, if_match: str = "") -> configured.Pushed:
        """The same in parts: a JSON merge patch (RFC 7396), in which None removes a key."""
        return self.send(calls.change(patch, dry_run=dry_run, if_match=if_match))

    def roll_back(self, version: str = "", *, dry_run: bool = False, if_match: str = "") -> configured.Pushed:
        """Have a version run again; by default the one before."""
        return self.send(calls.roll_back(version, dry_run=dry_run, if_match=if_match))

    def versions(self) -> configured.Versions:
        """What was pushed, the newest first."""
        return self.send(calls.versions())

    def version(self, version: str) -> configured.ConfigurationVersion:
        """A version with its configuration."""
        return self.send(calls.version(version))

    def journeys(
        self,
        *,
        begin: Sequence[str] = (),
        goal: Sequence[str] = (),
        without: Sequence[str] = (),
        funnel: Sequence[str] = (),
        depth: int | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> dict[str, Any]:
        """Paths, funnels, endings and cohorts over the sessions that were handed on: docs/journeys.md."""
        return self.send(
            calls.journeys(
                begin=begin,
                goal=goal,
                without=without,
                funnel=funnel,
                depth=depth,
                since_ms=since_ms,
                until_ms=until_ms,
            )
        )

    def models(self) -> answers.Models:
        """How the models are: versions, tests, what became of what they promised, drift, thresholds."""
        return self.send(calls.models())

    def live(self, order: str = "recent") -> Iterator[Look]:
        """All sessions that run, as the console sees them; order: "recent", "idle", or a head."""
        for event in self._listen(lambda _: calls.live(order), ""):
            yield Look(event.event, msgspec.json.decode(event.data))

    def openapi(self) -> dict[str, Any]:
        """The API's document."""
        return self.send(calls.openapi())

    def metrics(self) -> str:
        """Prometheus metrics of all workers."""
        return self.send(calls.metrics())

    def livez(self) -> str:
        """The process answers; else `Unreachable`."""
        return self.send(calls.livez())

    def readyz(self) -> str:
        """Every head scores its golden row; else `Refused` with 503."""
        return self.send(calls.readyz())

    def _listen(self, call_of: Callable[[str], calls.Call[bytes]], latest: str) -> Iterator[ServerSentEvent]:
        """Events of a stream; call_of: asks for those after an id. A stream that breaks is asked for again."""
        heard, failures = False, 0
        timeout = httpx.Timeout(self._timeout_seconds, read=QUIET_SECONDS)
        while True:
            call = call_of(latest)
            try:
                with connect_sse(self._http, timeout=timeout, **request(call, "")) as source:
                    if source.response.status_code != httpx.codes.OK:
                        source.response.read()
                        answer(call, source.response)
                    heard, failures = True, 0
                    for event in source.iter_sse():
                        latest = event.id or latest
                        if event.data:  # else it only says how long to wait before asking again
                            yield event
            except Refused as error:
                if heard and error.status == httpx.codes.NOT_FOUND:
                    return  # the session is over
                if not passes(error):
                    raise
            except httpx.HTTPError as error:
                if not heard and failures + 1 >= self._tries:
                    raise unreachable(error) from None
            failures += 1
            time.sleep(backoff(failures))
