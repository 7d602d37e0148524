"""Matomo: `matomo.php` and `piwik.php` under any prefix, as matomo.js, importers and servers call them.

In: parameters in the query, in a form body or, many requests at once, in JSON; what they mean does not depend on the
content type, which lies. Out: the same events that `features.sources.matomo` makes of Matomo's history, so no page on
searches, orders and carts. There is no client time but `cdt`; a request is told from others by its random `r`.

A cart call carries the whole cart: what changed since the last one comes from `collect.carts`. `new_visit=1` ends the
session that runs; `ping=1` goes on with one, and begins none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

import msgspec

from features.agents import device_of
from features.channels import Entry
from features.events import EVENT_NAMES, hash64
from features.remember import Entries
from features.settings import Settings, options_of
from features.trackers.matomo import (
    CHANNELS,
    EVENTS,
    campaign_kind,
    change_name,
    event_name,
    goal_name,
    kind_of_view,
    utc_offset,
)
from serving.collect import GIF, TOO_MANY, Collected, Endpoint, Hit, Refused, Tools
from serving.collect.carts import Changed, Product
from serving.collect.matomo_requests import (
    Parameters,
    UselessError,
    broken,
    category_of,
    items_of,
    number_of,
    requests_of,
    text_of,
    time_of,
)
from serving.collect.vocabulary import own_names
from serving.http.call import Reply
from serving.intake import EventIn, HashedItem
from serving.requests import Answer
from serving.stores import StoreError

# Live requests know one more kind than Matomo's history.
KINDS: Final = {**EVENTS, "ping": "user_engagement"}
# Page addresses with one of these are searches, as Matomo's own settings have it.
SEARCH_PARAMETERS: Final = ("q", "query", "s", "search", "searchword", "k", "keyword")
_ENDPOINTS: Final = ("/matomo.php", "/piwik.php")
_BY_PARAMETER: Final = (("search", "search"), ("link", "outlink"), ("download", "download"))
# What all events of one request have in common.
_COMMON: Final = ("visitor", "session", "time", "channel", "campaign", "device", "consent", "utc_offset")
_LONGEST: Final = 2_000

# What is known of a request at once, or what is when the store was asked.
Step = Callable[[], Awaitable[Sequence[EventIn]]]


class MatomoOptions(Settings):
    """What `[collect.options.matomo]` may hold.

    consent: what `consent=1` grants; without it, what holds where nothing is said. currency: of all sites, the shop's
    if it is empty. carts: "skip" leaves changes of carts out, as Matomo's history does by default. sites: take only
    these `idsite`, all if there are none. search_parameters: of page addresses that are searches.
    """

    consent: tuple[Literal["measure", "link", "personalise"], ...] = ("measure", "link")
    currency: str = ""
    carts: Literal["events", "skip"] = "events"
    sites: tuple[str, ...] = ()
    search_parameters: tuple[str, ...] = SEARCH_PARAMETERS


@dataclass(slots=True)
class _About:
    """What the answer depends on. count: of requests; invalid: the places of those that Matomo would not take."""

    many: bool = False
    silent: bool = False
    trusted: bool = False
    count: int = 0
    invalid: list[int] = field(default_factory=list)


class Matomo:
    """Its one endpoint, by any of its names."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._options = options_of("collect.options.matomo", tools.options, MatomoOptions)
        section = tools.shop.sources.get("matomo")
        self._names = {**own_names(tools.shop, "matomo", KINDS), **{name: name for name in EVENT_NAMES}}
        self._channels = {**CHANNELS, **(section.channels if section else {})}
        self._entries = Entries()
        self._searches = tuple(f"{name}=" for name in self._options.search_parameters)
        self._endpoint = Endpoint(("GET", "POST"), self.read, self.answer, self.answer_too_many)

    def endpoint(self, path: str) -> Endpoint | None:
        """`matomo.php` and `piwik.php`, wherever they lie."""
        return self._endpoint if path.endswith(_ENDPOINTS) else None

    def read(self, hit: Hit) -> Collected | Awaitable[Collected]:
        """The events of a hit.

        Raises
        ------
        Refused
            It is not what Matomo takes.
        """
        sent = requests_of(hit)
        about = _About(many=sent.many, silent=sent.silent, count=len(sent.requests))
        about.trusted = bool(sent.token) and self._tools.is_secret(sent.token)
        collected, steps = Collected(about=about), list[EventIn | Step]()
        for place, parameters in enumerate(sent.requests):
            try:
                steps.append(self._read(hit, parameters, collected))
            except UselessError as error:
                if error.invalid and not sent.many:
                    raise Refused(error.reason, _image(400, silent=sent.silent)) from None
                if error.invalid:
                    about.invalid.append(place)
                collected.dropped.append(error.reason)
        if all(isinstance(step, EventIn) for step in steps):
            collected.events = steps  # type: ignore[assignment]
            return collected
        return _taken(steps, collected)

    def answer(self, hit: Hit, collected: Collected, answers: Sequence[Answer]) -> Reply:
        """Nothing, a pixel or, of many requests, how many could be used."""
        del hit, answers
        about: _About = collected.about
        if about.many and not about.silent:
            told: dict[str, Any] = {"status": "success", "tracked": about.count - len(about.invalid)}
            told["invalid"] = len(about.invalid)
            if about.trusted:
                told["invalid_indices"] = about.invalid
            return Reply(b"application/json", msgspec.json.encode(told))
        return _image(204 if about.silent else 200, silent=about.silent)

    def answer_too_many(self, hit: Hit, collected: Collected) -> Reply:
        """What Matomo answers a request with that it cannot read: importers stop there and say so."""
        del hit
        about: _About = collected.about
        return broken(TOO_MANY).reply if about.many else _image(400, silent=about.silent)

    def _read(self, hit: Hit, sent: Parameters, collected: Collected) -> EventIn | Step:
        """One request.

        Raises
        ------
        UselessError
            It gives no event.
        """
        about: _About = collected.about
        site = text_of(sent, "idsite")
        if not site or (self._options.sites and site not in self._options.sites):
            raise UselessError("unknown idsite" if site else "no idsite", invalid=True)
        if sent.get("rec") != "1":
            raise UselessError("no rec=1", invalid=True)
        url = text_of(sent, "url", _LONGEST)
        kind = self._kind(sent, url)
        if kind == "action" and not url and not sent.get("action_name"):
            raise UselessError("nothing to record", invalid=True)
        time = time_of(sent, hit.received_ms, trusted=about.trusted)
        if kind == "content":
            raise UselessError("content impression: seen, not done")
        agent = text_of(sent, "ua") if "ua" in sent else hit.header(b"user-agent")
        device = device_of(agent)
        if device == "bot":
            if not about.trusted and sent.get("bots") != "1":
                raise UselessError("a program")
            device = "unknown"
        consent = self._consent(hit, sent, collected)
        linked = "link" in consent
        visitor = self._visitor(hit, sent, agent, site, linked=linked, trusted=about.trusted)
        entry = self._entry(url, text_of(sent, "urlref", _LONGEST))
        event = EventIn(
            visitor=visitor,
            name="custom",
            id=_id(sent),
            time=time,
            channel=entry.channel,
            campaign=entry.campaign[:512],
            device=device,
            consent=consent,
            utc_offset=_offset(sent, hit.received_ms if time is None else time),
        )
        step: EventIn | Step = event
        if kind == "order":
            step = partial(self._ordered, event, sent, site, hit.received_ms)
        elif kind == "cart":
            if self._options.carts == "skip":
                raise UselessError('cart: carts = "skip"')
            step = partial(self._carted, event, sent, hit.received_ms)
        elif kind == "ping":
            event.name, event.page = self._names["ping"], url
            step = partial(self._pinged, event, hit, site)
        else:
            self._fill(event, kind, sent, url)
        if sent.get("new_visit") == "1":
            event.session = event.id or f"{hit.received_ms}"
            return partial(self._begun, event, step)
        return step

    def _consent(self, hit: Hit, sent: Parameters, collected: Collected) -> list[str]:
        """What holds for a request; a refusal counts for the account that it names, too."""
        rules, said = self._tools.consent, sent.get("consent")
        if "uid" in sent and rules.refuses_link(hit.headers, () if said == "0" else None):
            collected.unlink(_account(sent))
        return rules.of(hit.headers, self._options.consent if said == "1" else None)

    def _kind(self, sent: Parameters, url: str) -> str:
        """What a request tells, in the words of `KINDS` where it is one of them."""
        get = sent.get
        if get("ping") == "1":
            return "ping"
        if goal := get("idgoal"):
            if goal != "0":
                return "goal"
            if get("ec_id"):
                return "order"
            if "ec_items" in sent:
                return "cart"
        if get("e_c") and get("e_a"):
            return "event"
        for name, kind in _BY_PARAMETER:
            if get(name):
                return kind
        if get("c_n"):
            return "content_interaction" if get("c_i") else "content"
        if "?" in url and any(
            part.startswith(self._searches) and part[-1] != "=" for part in url.partition("?")[2].split("&")
        ):
            return "search"
        return "action"

    def _fill(self, event: EventIn, kind: str, sent: Parameters, url: str) -> None:
        """What is particular to a request that is one event."""
        if kind == "action":
            event.page = url
            if "_pks" in sent or "_pkn" in sent or "_pkc" in sent:
                event.item = text_of(sent, "_pks") or text_of(sent, "_pkn")
                event.category = category_of(text_of(sent, "_pkc", _LONGEST))
                event.price = number_of(text_of(sent, "_pkp")) or 0.0
                event.currency = self._options.currency
            kind = kind_of_view(event.item, event.category)
        elif kind == "event":
            event.page = url
            kind = event_name(self._names, text_of(sent, "e_c"), text_of(sent, "e_a"))
        elif kind == "goal":
            event.page = url
            event.value, event.currency = number_of(text_of(sent, "revenue")) or 0.0, self._options.currency
            kind = goal_name(self._names, None, text_of(sent, "idgoal"))
        elif kind == "content_interaction":
            event.page = url
        event.name = self._names.get(kind, "custom")

    def _visitor(self, hit: Hit, sent: Parameters, agent: str, site: str, *, linked: bool, trusted: bool) -> str:
        """The visitor's id: of the account where visits may be linked, of the device, or for a day as Matomo has it.

        Raises
        ------
        UselessError
            Nothing tells visitors apart.
        """
        if linked and (account := _account(sent)):
            return account
        if device := text_of(sent, "cid") or text_of(sent, "_id"):
            return device
        known = agent
        if trusted or "ua" in sent:  # it comes from a server, whose own address and program are not the visitor's
            known = text_of(sent, "cip") if trusted else ""
            hit = hit._replace(address=known, headers={**hit.headers, b"user-agent": agent.encode()})
        visitor = self._tools.anonymous.visitor(hit, _site(site)) if known else ""
        if not visitor:
            raise UselessError("no visitor")
        return visitor

    def _entry(self, url: str, referrer: str) -> Entry:
        """Channel and campaign; a campaign that says nothing of its kind is what it is in Matomo's history."""
        entry = self._entries(url, referrer)
        if not entry.campaign:
            return entry
        kind = campaign_kind(self._entries(url, "").channel)
        return Entry(self._channels.get(kind, kind) if kind == "campaign" else kind, entry.campaign)

    async def _ordered(self, event: EventIn, sent: Parameters, site: str, now_ms: int) -> Sequence[EventIn]:
        """An event a product; the order's value on the first. A page that is loaded again sends its order again."""
        event.name, event.id = self._names["ecommerceOrder"], f"{site}/order/{hash64(text_of(sent, 'ec_id')):x}"
        items = items_of(text_of(sent, "ec_items", None))
        with suppress(StoreError):  # an order counts also if nobody can tell whether it came before
            changed = await self._exchange(event, [item.hashed() for item in items], now_ms, ordered=True)
            if changed.repeated:
                raise UselessError("an order that was counted")
        event.value, event.currency = number_of(text_of(sent, "revenue")) or 0.0, self._options.currency
        events = [event]
        for number, item in enumerate(items):
            if number:
                events.append(msgspec.structs.replace(event, id=f"{event.id}/{number}", value=0.0))
            one = events[-1]
            one.item, one.category, one.price, one.quantity = item
        return events

    async def _carted(self, event: EventIn, sent: Parameters, now_ms: int) -> Sequence[EventIn]:
        """An event a product of which there are more or fewer than in the cart before."""
        items = items_of(text_of(sent, "ec_items", None))
        cart = [item.hashed() for item in items]
        texts = {product.item: item for product, item in zip(cart, items, strict=True)}
        changed = await self._exchange(event, cart, now_ms, ordered=False)
        if not changed.products:
            raise UselessError("a cart that was counted" if changed.repeated else "cart that did not change")
        common = {name: getattr(event, name) for name in _COMMON}
        events: list[EventIn] = []
        for product in changed.products:
            told: dict[str, Any] = {
                **common,
                "name": self._names[change_name(product.quantity)],
                "id": event.id and f"{event.id}/{product.item:x}",
                "price": product.price,
                "quantity": abs(product.quantity),
                "currency": self._options.currency,
            }
            item = texts.get(product.item)
            if item is not None:
                events.append(EventIn(**told, item=item.item, category=item.category))
            else:
                events.append(HashedItem(**told, item_hash=product.item, category_hash=product.category))
        return events

    async def _exchange(self, event: EventIn, cart: Sequence[Product], now_ms: int, *, ordered: bool) -> Changed:
        at_ms = now_ms if event.time is None else int(event.time)
        return await self._tools.carts.exchange(
            event.visitor, event.id, cart, at_ms, now_ms, linked=_is_linked(event), ordered=ordered
        )

    async def _pinged(self, event: EventIn, hit: Hit, site: str) -> Sequence[EventIn]:
        """A sign that the visitor is still there: it begins no session.

        With one, matomo.js tells the id that it has made once cookies are allowed: the session that runs without an id
        goes on under it.
        """
        tools = self._tools
        if await tools.look(event.visitor) is None:
            former = tools.anonymous.visitor(hit, _site(site))
            if not former or await tools.look(former) is None:
                raise UselessError("a ping without a session")
            await tools.join(event.visitor, former, linked=_is_linked(event))
        return [event]

    async def _begun(self, event: EventIn, step: EventIn | Step) -> Sequence[EventIn]:
        """The visitor's session ends before this request's events."""
        with suppress(StoreError):
            await self._tools.end(event.visitor, event.id, linked=_is_linked(event))
            await self._tools.carts.forget(event.visitor, linked=_is_linked(event))
        return [step] if isinstance(step, EventIn) else await step()


async def _taken(steps: Sequence[EventIn | Step], collected: Collected) -> Collected:
    """The events of all requests, one after the other."""
    for step in steps:
        if isinstance(step, EventIn):
            collected.events.append(step)
            continue
        try:
            collected.events += await step()
        except UselessError as error:
            collected.dropped.append(error.reason)
        except StoreError:
            collected.dropped.append("the store does not answer")
    return collected


def _account(sent: Parameters) -> str:
    """Matomo's own visitor id of an account, which its history has; empty if nobody is logged in."""
    account = text_of(sent, "uid")
    return hashlib.sha1(account.encode(), usedforsecurity=False).hexdigest()[:16] if account else ""


def _id(sent: Parameters) -> str:
    """What names a request: all that it says, if that holds a random number."""
    return f"{hash64(sent.text):x}" if "r" in sent or "rand" in sent else ""


def _offset(sent: Parameters, at_ms: int) -> int | None:
    """Minutes that the visitor's clock is ahead of UTC; None if it is not told."""
    try:
        local = int(sent["h"]) * 3600 + int(sent["m"]) * 60 + int(sent.get("s") or 0)
    except (KeyError, ValueError):
        return None
    return utc_offset(at_ms // 1000, local)


def _site(site: str) -> str:
    """What visitors without an id are told apart within."""
    return f"matomo {site}"


def _is_linked(event: EventIn) -> bool:
    return "link" in (event.consent or ())


def _image(status: int, *, silent: bool) -> Reply:
    return Reply(b"image/gif", b"" if silent else GIF, status)
