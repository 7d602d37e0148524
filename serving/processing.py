"""The record of processing activities (GDPR 30): what is held, why, how long, where, from the code's own tables.

In: the configuration. Out: the same as JSON-ready dicts and as Markdown. Columns, fields, tables and formats are those
that the service reads and writes with, retention is what is configured, so the record cannot say anything else than
what is done; a test compares it with what a running service leaves on the disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from features.definitions import CATALOGUE
from features.events import COLUMNS, CONSENTS
from features.sessions import HEADER_WORDS, RECENT_IDS
from serving.decisions import Decision
from serving.experiments.assignments import MOST
from serving.http.idempotency import LEASE_MS
from serving.outbound.dead_letters import DeadLetter
from serving.recipients import recipients
from serving.stores.place import live_folder
from serving.tails import BATCH_IDS

if TYPE_CHECKING:
    from features.declare import Field
    from serving.settings import ServingSettings, StoreSettings

_DAY: Final = "the pseudonym's key is deleted 48 hours after its day"
_RIGHTS: Final = "GET and DELETE /v1/visitors/me with a session's token; lotse privacy export and erase"


class Holding(msgspec.Struct, kw_only=True):
    """One place.

    where: as configured; files: of which it consists, as patterns; holds: what by name, with its meaning; whose: whom
    it is about; why: purpose; kept: how long; erased: how a visitor sees and erases it.
    """

    name: str
    where: str
    files: list[str]
    holds: dict[str, str]
    whose: str
    why: str
    kept: str
    erased: str


def record_of(settings: ServingSettings) -> dict[str, Any]:
    """The whole record."""
    return {
        "title": "Record of processing activities: Lotse",
        "as_of": datetime.now(UTC).date().isoformat(),
        "controller": settings.privacy.controller or "(set privacy.controller)",
        "purposes": [
            "measure: sessions are counted and their course is described, to learn from and to score them",
            "link: earlier visits of the same visitor are known, where there is consent",
            "personalise: what visitors said about themselves is used, where there is consent",
        ],
        "data_subjects": "visitors of the site",
        "never_held": [
            "IP addresses (looked at for limits and, of trackers without ids, for a day's pseudonym; never written)",
            "user agents (looked at for the kind of device)", "queries and fragments of addresses, page titles",
            "names, e-mail addresses, ids as the tracker gave them (keyed hashes only)", "cookies and fingerprints",
        ],
        "recipients": recipients(settings),
        "transfers": "none by the software, but to the recipients",
        "consent": {
            "default": list(settings.session.consent),
            "kinds": list(CONSENTS),
            "Sec-GPC": "takes back link and personalise" if settings.privacy.gpc else "is not looked at",
            "DNT": "takes back link and personalise" if settings.privacy.dnt else "is not looked at",
            "withdrawal": "an event without link erases the lasting record at once and unlinks handed-on rows within "
            f"{settings.store.closed_seconds:g} s",
        },
        "holdings": [msgspec.structs.asdict(holding) for holding in holdings(settings)],
        "security": [
            "pseudonyms are keyed hashes (BLAKE2b, 256 bits); without consent to link the key changes every day",
            "session tokens are signed; API keys are kept as SHA-256",
            "files of keys, spools and decisions are readable by the service's user only",
            "LOTSE_STORE_KEY encrypts the embedded store and spools (AES-256-GCM); [tls] encrypts connections",
        ],
    }  # fmt: skip


def holdings(settings: ServingSettings) -> list[Holding]:
    """Every place in which the service leaves something."""
    store, keys, decisions = settings.store, settings.keys.folder, settings.decisions
    timeout, linked = f"{settings.session.timeout_minutes:g} minutes", f"{store.linked_days:g} days"
    return [
        Holding(
            name="live store",
            where=_store_place(store),
            files=_store_files(store),
            holds=_tables(store.url, store.prefix),
            whose="every visitor, by pseudonym",
            why="to score the session that runs; with consent, to know earlier visits",
            kept=f"without consent to link until nothing has come for {timeout}; with it {linked} after the first visit"
            " at most, ending with a session; an objection of one who is not linked 48 hours",
            erased=_RIGHTS,
        ),
        Holding(
            name="session record",
            where="a value of the live store",
            files=[],
            holds=_record(),
            whose="every visitor, by pseudonym",
            why="what the models' features are computed from",
            kept="as its record",
            erased=_RIGHTS,
        ),
        Holding(
            name="requests sent again",
            where="values of the live store",
            files=[],
            holds={
                "key": "hash of the Idempotency-Key",
                "request": "keyed digest of the request, 16 bytes",
                "lease": f"until when it is worked on, at most {LEASE_MS // 1000} s",
            },
            whose="nobody: no visitor can be found by it",
            why="a request that is sent again has its effect once",
            kept=f"{settings.server.idempotency_hours:g} hours",
            erased="by itself",
        ),
        Holding(
            name="handed-on sessions",
            where=store.closed,
            files=[f"{store.closed}/day=*/*.parquet", f"{store.closed}/.lock", f"{store.closed}/.erase-*",
                   f"{store.closed}/.unlink-*"],
            holds=closed_columns(),
            whose="every visitor whose session is over, by pseudonym",
            why="to learn from, and to compare scores with what came of them",
            kept=f"{store.closed_days:g} days; without consent to link {_DAY}, so that no two days belong together",
            erased=_RIGHTS,
        ),
        Holding(
            name="what experiments have learned",
            where=settings.experiments.learned,
            files=[f"{settings.experiments.learned}/**"],
            holds={
                "counted.sqlite": "of each unit of an experiment the hour of its exposure, arm, probability, bin of a "
                "score, outcomes, and which of 1,024 groups of visitors it is of; names of the files that were counted",
                "learned.json": "probabilities of arms, counts and results of 50 units or more, arms that were stopped",
                "timeline.json": "when phases began, probabilities of arms since then, arms that were closed and when",
            },
            whose="nobody: no visitor can be found by it",
            why="experiments assign what has turned out better, and stop what harms",
            kept="as the handed-on sessions that it is counted from",
            erased=f"with them: within {settings.experiments.learn_seconds:g} s of an erasure they are counted anew",
        ),
        Holding(
            name="events that wait for the store",
            where=store.spool,
            files=[f"{store.spool}/*/{name}" for name in ("data.mdb", "lock.mdb", "owner", "boot")],
            holds={name: column.meaning for name, column in COLUMNS.items()}
            | {
                "others": "veiled keys of the record before midnight or before a change of consent",
                "unlinked": "veiled keys of accounts that refused to be linked",
            },
            whose="visitors of a time in which the store was away, by pseudonym",
            why="nothing that was acknowledged is lost",
            kept="until the store is back; then the folder is deleted",
            erased=_RIGHTS,
        ),
        Holding(
            name="log of decisions",
            where=decisions.folder if decisions.sample else f"{decisions.folder} (switched off)",
            files=[f"{decisions.folder}/decisions-*.jsonl"],
            holds=dict.fromkeys(Decision.__struct_fields__, "")
            | {
                "at": "moment, ms UTC", "visitor": "pseudonym of the day, whatever the consent",
                "automated": "whether models were asked", "scores": "as answered", "models": "versions",
                "codes": "features that moved a score most", "reasons": "why there is no score of a model",
            },
            whose=f"a share of {decisions.sample:g} of the answers",
            why="to show that, and by what, automated decisions were made",
            kept=f"{decisions.kept_days:g} days; {_DAY}",
            erased="shown by export; not erased: it proves that rights were kept to, and leads to nobody after 48 h",
        ),
        Holding(
            name="messages that were not delivered",
            where=settings.outbound.folder,
            files=[f"{settings.outbound.folder}/*.jsonl", f"{settings.outbound.folder}/.lock"],
            holds=dict.fromkeys(DeadLetter.__struct_fields__, "")
            | {
                "id": "keyed hash of the message", "at": "moment, ms UTC", "dead_at": "when it was given up, ms UTC",
                "why": "it could not be delivered", "visitor": "pseudonym", "session": "the session's token",
                "data": "segment, scores, versions; experiment and arm",
            },
            whose="visitors who consent to personalise and whom a webhook could not be told of, by pseudonym",
            why="they are sent again by hand",
            kept=f"{settings.outbound.dead_hours:g} hours",
            erased=_RIGHTS,
        ),
        Holding(
            name="keys",
            where=keys,
            files=[f"{keys}/{name}" for name in ("pseudonym.key", "day-*.key", "token.key", "keys.jsonl", "keys.lock")],
            holds={
                "pseudonym.key": "makes lasting pseudonyms; deleting it unlinks all of them",
                "day-*.key": "makes a day's pseudonyms",
                "token.key": "signs sessions' tokens",
                "keys.jsonl": "SHA-256 of API keys, their names, origins and times",
            },
            whose="nobody; names of API keys as operators gave them",
            why="pseudonyms and access",
            kept="day-*.key until 48 hours after its day; others until they are deleted",
            erased="deleting keys.folder/pseudonym.key unlinks everybody",
        ),
        Holding(
            name="models",
            where=f"{settings.models.cache}, {settings.models.uri.rpartition('@')[2] or 'no registry'}",
            files=[f"{settings.models.cache}/**", "lotse-data/mlflow.db*", "lotse-data/mlruns/**",
                   "lotse-data/mlartifacts/**"],
            holds={"trees": "thresholds of features", "tables": "of hashes of products, categories, pages, campaigns: "
                   "shares of sessions", "reports": "figures over all sessions"},
            whose="nobody",
            why="to score",
            kept="until they are deleted",
            erased="holds no visitor",
        ),
        Holding(
            name="counters",
            where=settings.server.run,
            files=[f"{settings.server.run}/**"],
            holds={"samples": "what /metrics shows: counts by path, status, head and reason"},
            whose="nobody",
            why="operation",
            kept="while the service runs",
            erased="holds no visitor",
        ),
        Holding(
            name="log",
            where="standard error",
            files=[],
            holds={"lines": f"errors, and a share of {settings.logs.sample:g} of the requests: route, status, time"},
            whose="nobody",
            why="operation",
            kept="as the operator's log",
            erased="holds no visitor",
        ),
        Holding(
            name="memory",
            where="the service's processes",
            files=[],
            holds={
                "networks": "hashes of /24 and /48 with a key that is drawn in the process and replaced every hour",
                "messages": "what others are told, with a tracker's own id of the visitor where its own server is: "
                f"until it is sent, at most {settings.outbound.deadline_seconds:g} s",
                "segments": "in which a session is, by pseudonym",
                "tokens": "of the latest sessions, by pseudonym and start",
                "requests": "addresses, headers and bodies while they are answered; pages' addresses up to a second; "
                "freed memory is written over when it is used again",
                "hashes": "of pages, user agents and the like that came before, with the kind of each; keyed with a "
                "secret that is drawn in the process",
            },
            whose="visitors who are answered now",
            why="limits; answering",
            kept="until the answer; hashes until the process ends",
            erased="by itself",
        ),
    ]  # fmt: skip


def closed_columns() -> dict[str, str]:
    """Columns of handed-on sessions."""
    return {
        "visitor": "pseudonym; after a withdrawal a number drawn at random for each row",
        "field_digest": "which fields these are",
        "started_at": "start, ms UTC",
        "ended_at": "latest event, ms UTC",
        "events": "number of events",
        "consent": "bit set of CONSENTS; 8: objects to automated decisions",
        **{name: _meaning(field) for name, field in CATALOGUE.fields.items()},
        "assignments": "of experiments: which, arm, probability of the arm, when, scores and age of the session then",
        "record": "the record as it is, of a release whose fields are not known any more",
        "row/of": "how many moments of the session the row/ columns were drawn from, at random",
        "row/number": "which of them it is",
        "row/last_at": "latest event at that moment, ms UTC",
        "row/events": "number of events then",
        "row/consent": "bit set of CONSENTS then",
        "row/idle_ms": "silence since the latest event then",
        "row/until": "when the next moment came, ms UTC",
        **{f"row/{name}": f"then: {_meaning(field)}" for name, field in CATALOGUE.fields.items()},
    }


def _record() -> dict[str, str]:
    header = {
        "state": "when the record is to be looked at, whether its session was handed on, when the latest event came",
        "digest": "which fields these are",
        "visitor": "pseudonym",
        "session": "hash of the session id that the tracker gave",
        "started_at": "start of the session, ms UTC",
        "last_at": "latest event, ms UTC",
        "events": "number of events",
        "duplicates": "repeated events",
        "late": "events that came too late",
        "consent": "bit set of CONSENTS; 8: objects to automated decisions",
        f"recent_1 to recent_{RECENT_IDS}": "hashes of the latest event ids",
        "row": "the record as it was at a moment drawn at random, with log.rows: what models learn from",
        "assignments": f"up to {MOST} lines of experiments: which, arm, its probability, when, scores and age of the "
        "session then, what it had of the goals; of later sessions only with consent to link",
        "writes": "up to 8 random tokens of writes that may be tried again",
        "batches": f"hashes of up to {BATCH_IDS:,} ids of events that came more than {RECENT_IDS} together, until the "
        "session is over",
    }
    assert HEADER_WORDS == 9 + RECENT_IDS
    header = {f"header.{name}": meaning for name, meaning in header.items()}
    return header | {name: _meaning(field) for name, field in CATALOGUE.fields.items()}


def _meaning(field: Field) -> str:
    text = " ".join(field.doc.split())
    return f"{text} Kept over linked visits." if field.scope == "visitor" else text


def _tables(url: str, prefix: str) -> dict[str, str]:
    """What a store keeps, by the names in it."""
    scheme = url.partition(":")[0]
    for point in entry_points(group="lotse.stores"):
        if point.name == scheme:
            held = getattr(import_module(point.module), "HELD", {})
            return {name.format(prefix=prefix): meaning for name, meaning in held.items()}
    return {}


def _store_place(store: StoreSettings) -> str:
    scheme, _, folder = store.url.partition(":")
    if scheme == "embedded" and store.memory_folder:
        return f"{store.url}; while the service runs, in memory: {live_folder(Path(folder), store.memory_folder)}"
    return store.url.rpartition("@")[2]


def _store_files(store: StoreSettings) -> list[str]:
    scheme, _, folder = store.url.partition(":")
    if scheme != "embedded":
        return []
    live = live_folder(Path(folder), store.memory_folder)
    kept = ("boot", "users", "saved.*", "journal-*", "checkpoint*", "damaged-*.mdb")
    return [f"{live}/{name}" for name in ("data.mdb", "lock.mdb", "new.mdb")] + [f"{folder}/{name}" for name in kept]


def markdown(record: dict[str, Any]) -> str:
    """The record as a page."""
    parts = [f"# {record['title']}", f"As of {record['as_of']}. Written by `lotse privacy report` from the code and "
             "the configuration.", f"**Controller:** {record['controller']}"]  # fmt: skip
    titles = {"purposes": "Purposes", "recipients": "Recipients", "never_held": "Never held", "security": "Security"}
    for name, title in titles.items():
        parts.append(f"## {title}\n\n" + "\n".join(f"- {line}" for line in record[name]))
    for name in ("data_subjects", "transfers"):
        parts.append(f"**{name.replace('_', ' ').capitalize()}:** {record[name]}")
    consent = record["consent"]
    parts.append("## Consent\n\n" + "\n".join(f"- {key}: {_text(value)}" for key, value in consent.items()))
    parts.append("## What is held")
    for one in record["holdings"]:
        lines = [f"### {one['name']}", ""]
        lines += [f"- {key}: {_text(one[key])}" for key in ("where", "whose", "why", "kept", "erased")]
        lines += ["", "| what | meaning |", "| --- | --- |"]
        lines += [f"| `{name}` | {meaning} |" for name, meaning in one["holds"].items()]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _text(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value)
