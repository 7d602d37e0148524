"""Declaring the fold: `field` and `feature` turn plain functions into entries of a catalogue.

A *field* maps the previous field values and the event to its next value; a *feature* maps fields, other features and
`now` to a number. The function's name is the entry's name, its parameters are its inputs, its docstring is its
catalogue entry. All fields update at once from the previous values, so their order never matters.

Mistakes are refused as early as they can be seen: a duplicate name or a missing docstring at the decorator, an unknown
parameter or a cycle when the catalogue is complete (`Catalogue.check`, called by `features.definitions` on import).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, Literal

from features.events import COLUMNS, CONSENTS

Body = Callable[..., Any]
Scope = Literal["session", "visitor"]
Statistic = Literal["popularity", "rate", "log_odds"]

# Identity and delivery are handled before the fold: no feature may depend on who somebody is.
EVENT_INPUTS: Final = tuple(name for name in COLUMNS if name not in ("visitor", "session", "id", "consent"))
NOW: Final = "now"
DTYPES: Final = ("i8", "f8", "i4", "f4", "i2", "i1", "u1")


class CatalogueError(ValueError):
    """A declaration that cannot be used: names the entry, its place, what was found and what to do."""


@dataclass(frozen=True)
class Field:
    """One value of the session record.

    `inputs` maps the body's parameters to event columns and fields (a field's own name is its previous value).
    `scope` "visitor" survives into the visitor's next session where consent to link was given.
    """

    name: str
    dtype: str
    body: Body
    inputs: Mapping[str, str]
    initial: float
    scope: Scope
    doc: str
    origin: str


@dataclass(frozen=True)
class Feature:
    """One column of the feature vector; `consent` is the bit that must be given, else the value is missing (NaN).

    With a `table` the body gives the key of a learned table (`features.tables`) and the feature is what it holds there;
    `statistic` says what training puts into it.
    """

    name: str
    body: Body | None
    inputs: Mapping[str, str]
    doc: str
    unit: str
    group: str
    consent: int
    origin: str
    table: str = ""
    statistic: Statistic | None = None

    @property
    def consent_name(self) -> str:
        """The name of the consent this feature needs, or an empty string."""
        return next((name for name, bit in CONSENTS.items() if bit == self.consent), "")


@dataclass
class Catalogue:
    """Fields and features by name, in the order of their declaration."""

    fields: dict[str, Field] = dataclass_field(default_factory=dict)
    features: dict[str, Feature] = dataclass_field(default_factory=dict)

    def field(
        self,
        dtype: str,
        *,
        initial: float = 0,
        scope: Scope = "session",
        feature: bool = False,
        unit: str = "",
        consent: str = "",
    ) -> Callable[[Body], Body]:
        """Declare the decorated function as a field; with `feature=True` its value is a feature too.

        >>> catalogue = Catalogue()
        >>> @catalogue.field("i4", feature=True)
        ... def cart_adds(cart_adds, name):
        ...     '''Products put in the cart so far.'''
        ...     return cart_adds + (name == 7)
        >>> list(catalogue.features)
        ['cart_adds']
        """

        def declare(body: Body) -> Body:
            self.add_field(body.__name__, dtype, body, initial=initial, scope=scope)
            if feature:
                self.expose(body.__name__, unit=unit, consent=consent)
            return body

        return declare

    def feature(self, body: Body | None = None, *, unit: str = "", consent: str = "") -> Any:
        """Declare the decorated function as a feature; works with and without arguments."""

        def declare(body: Body) -> Body:
            self.add_feature(body.__name__, body, unit=unit, consent=consent)
            return body

        return declare if body is None else declare(body)

    def learned(self, statistic: Statistic, *, table: str = "", unit: str = "") -> Callable[[Body], Body]:
        """Declare a feature that training fills in: the body gives a key, the value is what was learned about it.

        statistic: "popularity", the logarithm of the share of sessions that show the key; "rate", the share of those
        sessions that went on to the goal; "log_odds", of the key between sessions that went on to the goal and others.
        table: its name, where features share one; the feature's own by default. Key 0 is "none": the value is missing,
        as it is where nothing was learned yet.

        >>> catalogue = Catalogue()
        >>> @catalogue.learned("rate")
        ... def item_conversion_rate(last_item):
        ...     '''Sessions with this product that bought.'''
        ...     return last_item
        >>> catalogue.tables
        {'item_conversion_rate': 'rate'}
        """

        def declare(body: Body) -> Body:
            (group, origin), name = _place(), body.__name__
            text = _documented(name, "feature", body, None)
            if statistic not in ("popularity", "rate", "log_odds"):
                raise CatalogueError(
                    f"feature {name!r} at {origin} learns {statistic!r}; allowed: popularity, rate, log_odds"
                )
            if self.tables.get(table or name, statistic) != statistic:
                raise CatalogueError(
                    f"feature {name!r} at {origin} learns {statistic!r} from the table {table!r}, which holds "
                    f"{self.tables[table]!r}; name another table"
                )
            entry = Feature(name, body, _inputs(name, body, None), text, unit, group, 0, origin)
            self._new_feature(replace(entry, table=table or name, statistic=statistic))
            return body

        return declare

    @property
    def tables(self) -> dict[str, Statistic]:
        """Learned tables and what they hold, in the order of their declaration."""
        return {entry.table: entry.statistic for entry in self.features.values() if entry.statistic is not None}

    def keys(self) -> Catalogue:
        """A catalogue whose features are the keys of the learned tables: the feature's body as it stands, named by it.

        Of features that share a table the first gives its keys. Its fold is what training counts with
        (`compile_fold(..., dtype="i8")`), so a key is computed by the same code when it is learned and when it is used.
        """
        firsts: dict[str, Feature] = {}
        for entry in self.features.values():
            if entry.table:
                firsts.setdefault(entry.table, replace(entry, table="", statistic=None))
        chosen = self.select(entry.name for entry in firsts.values())
        return Catalogue(chosen.fields, {t: replace(e, name=t) for t, e in firsts.items()})

    def add_field(
        self,
        name: str,
        dtype: str,
        body: Body,
        *,
        initial: float = 0,
        scope: Scope = "session",
        doc: str | None = None,
        inputs: Mapping[str, str] | None = None,
    ) -> None:
        """Add a field under a name of its own: what factories such as `features.aggregations.count` call."""
        (_, origin), text = _place(), _documented(name, "field", body, doc)
        if name in self.fields:
            raise CatalogueError(
                f"field {name!r} at {origin} is declared already at {self.fields[name].origin}; rename one"
            )
        if name in COLUMNS or name == NOW:
            raise CatalogueError(f"field {name!r} at {origin} has the name of an event column; choose another name")
        if dtype not in DTYPES:
            raise CatalogueError(f"field {name!r} at {origin} has dtype {dtype!r}; allowed: {', '.join(DTYPES)}")
        if scope not in ("session", "visitor"):
            raise CatalogueError(f"field {name!r} at {origin} has scope {scope!r}; allowed: session, visitor")
        self.fields[name] = Field(name, dtype, body, _inputs(name, body, inputs), initial, scope, text, origin)

    def add_feature(
        self,
        name: str,
        body: Body,
        *,
        unit: str = "",
        consent: str = "",
        doc: str | None = None,
        inputs: Mapping[str, str] | None = None,
    ) -> None:
        """Add a feature under a name of its own."""
        (group, origin), text = _place(), _documented(name, "feature", body, doc)
        self._new_feature(
            Feature(name, body, _inputs(name, body, inputs), text, unit, group, _consent(name, consent), origin)
        )

    def expose(self, name: str, *, unit: str = "", consent: str = "") -> None:
        """Make the field `name` a feature of the same name."""
        of = self.fields[name]
        group, _ = _place()
        self._new_feature(Feature(name, None, {name: name}, of.doc, unit, group, _consent(name, consent), of.origin))

    def _new_feature(self, feature: Feature) -> None:
        if feature.name in self.features:
            raise CatalogueError(
                f"feature {feature.name!r} at {feature.origin} is declared already at "
                f"{self.features[feature.name].origin}; rename one"
            )
        if feature.body is not None and feature.name in self.fields:
            raise CatalogueError(
                f"feature {feature.name!r} at {feature.origin} has the name of the field at "
                f"{self.fields[feature.name].origin}; rename one, or declare the field with feature=True"
            )
        if feature.name in COLUMNS or feature.name == NOW:
            raise CatalogueError(f"feature {feature.name!r} at {feature.origin} has the name of an event column")
        self.features[feature.name] = feature

    def check(self) -> Catalogue:
        """This catalogue, if every parameter is known and no features go in a circle.

        Raises
        ------
        CatalogueError
            Unknown parameter or cycle, with the place and the nearest allowed names.
        """
        for entry in self.fields.values():
            known = {*EVENT_INPUTS, *self.fields}
            for parameter in entry.inputs.values():
                if parameter not in known:
                    raise CatalogueError(_unknown(f"field {entry.name!r}", entry.origin, parameter, known))
        for feature in self.features.values():
            # the keys of a learned table are counted event by event, so they say nothing about a later `now`
            known = set(self.fields) if feature.table else {NOW, *self.fields, *self.features}
            for parameter in feature.inputs.values():
                if parameter not in known:
                    raise CatalogueError(_unknown(f"feature {feature.name!r}", feature.origin, parameter, known))
        self.feature_order()
        return self

    def feature_order(self) -> list[str]:
        """Feature names, each after those it is computed from.

        Raises
        ------
        CatalogueError
            Features depend on each other in a circle.
        """
        graph = {
            feature.name: [source for source in feature.inputs.values() if source in self.computed]
            for feature in self.features.values()
        }
        try:
            return list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            circle = " -> ".join(reversed(error.args[1]))
            origin = self.features[error.args[1][0]].origin
            raise CatalogueError(
                f"features depend on each other in a circle: {circle} ({origin}); turn one of them into a field"
            ) from None

    @property
    def computed(self) -> set[str]:
        """Names of features that have a body of their own (not just an exposed field)."""
        return {feature.name for feature in self.features.values() if feature.body is not None}

    def select(self, names: Iterable[str]) -> Catalogue:
        """A catalogue of these features alone, with the features and fields that they need.

        Features that are only needed on the way stay features, because a column says what it is computed from.

        Raises
        ------
        CatalogueError
            A name is no feature of this catalogue.
        """
        wanted: set[str] = set()
        open_names = list(names)
        for name in open_names:
            if name not in self.features:
                raise CatalogueError(_unknown("a selection", "select()", name, set(self.features)))
        while open_names:
            name = open_names.pop()
            if name in wanted:
                continue
            wanted.add(name)
            for entry in (self.features.get(name), self.fields.get(name)):
                if entry is not None:
                    open_names.extend(s for s in entry.inputs.values() if s in self.fields or s in self.features)
        return Catalogue(
            {name: entry for name, entry in self.fields.items() if name in wanted},
            {name: entry for name, entry in self.features.items() if name in wanted},
        ).check()


def _unknown(what: str, origin: str, parameter: str, known: Iterable[str]) -> str:
    import difflib  # noqa: PLC0415  (only an error needs it)

    known = sorted(known)
    near = difflib.get_close_matches(parameter, known, n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(known)}"
    return f"{what} at {origin} asks for unknown {parameter!r}; {hint}"


def _inputs(name: str, body: Body, inputs: Mapping[str, str] | None) -> dict[str, str]:
    given = dict(inputs or {})
    parameters = inspect.signature(body).parameters
    strangers = set(given) - set(parameters)
    if strangers:
        raise CatalogueError(f"{name!r} at {_place()[1]} binds {sorted(strangers)}, which its body does not take")
    return {parameter: given.get(parameter, parameter) for parameter in parameters}


def _documented(name: str, kind: str, body: Body, doc: str | None) -> str:
    text = inspect.cleandoc(doc if doc is not None else body.__doc__ or "").strip()
    if not text:
        raise CatalogueError(
            f"{kind} {name!r} at {_place()[1]} has no docstring; write one sentence: it is the catalogue entry"
        )
    return text


def _consent(name: str, consent: str) -> int:
    if not consent:
        return 0
    if consent not in CONSENTS:
        raise CatalogueError(f"feature {name!r} needs unknown consent {consent!r}; known: {', '.join(CONSENTS)}")
    return CONSENTS[consent]


_DECLARING: Final = ("features.declare", "features.aggregations")


def _place() -> tuple[str, str]:
    """Group and "file:line" of the code that declares something, seen through this module and the factories."""
    frame = sys._getframe(1)
    while frame.f_globals.get("__name__") in _DECLARING and frame.f_back is not None:
        frame = frame.f_back
    module = str(frame.f_globals.get("__name__", "")).rpartition(".")[2]
    return module, f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"


CATALOGUE: Final = Catalogue()
field = CATALOGUE.field
feature = CATALOGUE.feature
learned = CATALOGUE.learned
