"""JSON schemas reduced to what a client depends on: types, fields, which must be there, words of a closed list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Tree = Mapping[str, Any]
_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


@dataclass
class Shape:
    """What a value may be.

    types: of JSON, empty for any. words: the only ones, None for any. fields: of an object. values: of an object that
    has any fields, and of an array's items.
    """

    types: set[str] = field(default_factory=set)
    words: set[Any] | None = None
    fields: dict[str, Shape] | None = None
    required: set[str] = field(default_factory=set)
    values: Shape | None = None
    items: Shape | None = None
    default: Any = None


def shape_of(schema: Tree, schemas: Tree) -> Shape:
    """Of a schema; schemas: what it may refer to, by name."""
    if "$ref" in schema:
        return shape_of(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    found = Shape(default=schema.get("default"))
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        one = shape_of(choice, schemas)
        found.types |= one.types
        for name in ("words", "fields", "values", "items"):
            if getattr(one, name) is not None:
                setattr(found, name, getattr(one, name))
        found.required |= one.required
    types = schema.get("type", [])
    found.types |= {types} if isinstance(types, str) else set(types)
    if "enum" in schema or "const" in schema:
        found.words = set(schema.get("enum", [schema.get("const")]))
        found.types |= {_NAMES[type(word)] for word in found.words}
    if schema.get("properties"):
        found.fields = {name: shape_of(one, schemas) for name, one in schema["properties"].items()}
        found.required = set(schema.get("required", ()))
    if isinstance(schema.get("additionalProperties"), Mapping):
        found.values = shape_of(schema["additionalProperties"], schemas)
    if "items" in schema:
        found.items = shape_of(schema["items"], schemas)
    return found


def differences(theirs: Shape, ours: Shape, place: str, *, sent: bool) -> Iterator[str]:
    """What the document and the client say differently; sent: of a body, where the client may be narrower."""
    if theirs.types != ours.types:
        yield f"{place}: {sorted(theirs.types) or 'any'} in the document, {sorted(ours.types) or 'any'} in the client"
        return
    if theirs.words != ours.words and not (sent and theirs.words is None):
        yield f"{place}: words {theirs.words} in the document, {ours.words} in the client"
    if sent and theirs.default != ours.default:
        yield f"{place}: default {theirs.default!r} in the document, {ours.default!r} in the client"
    if theirs.items is not None or ours.items is not None:
        yield from differences(theirs.items or Shape(), ours.items or Shape(), f"{place}[]", sent=sent)
    if theirs.values is not None:
        yield from differences(theirs.values, ours.values or Shape(), f"{place}.*", sent=sent)
    if theirs.fields is not None:
        fields = ours.fields or {}
        for name in theirs.fields.keys() ^ fields.keys():
            yield f"{place}.{name}: only in the {'document' if name in theirs.fields else 'client'}"
        for name in theirs.fields.keys() & fields.keys():
            if not sent and name not in theirs.required and "null" not in theirs.fields[name].types:
                fields[name].types.discard("null")  # what may be left out is None for the client's user
            yield from differences(theirs.fields[name], fields[name], f"{place}.{name}", sent=sent)
            if (name in theirs.required) != (name in ours.required):
                yield f"{place}.{name}: {'' if name in theirs.required else 'not '}required in the document only"
