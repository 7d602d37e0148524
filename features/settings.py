"""Typed configuration: a TOML file and `a.b=c` overrides in, one frozen pydantic model out; unknown keys fail.

Secrets never come from here but from the environment.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError


class SettingsError(ValueError):
    """A configuration that cannot be used: names the file, the key, what was found and what is allowed."""


class Settings(BaseModel):
    """Base of every configuration section: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AnySettings = TypeVar("AnySettings", bound=Settings)


def load_settings(path: Path | str, model: type[AnySettings], overrides: Sequence[str] = ()) -> AnySettings:
    """Read `path` (TOML) as `model`, with overrides such as `lightgbm.num_leaves=31` applied on top.

    Raises
    ------
    SettingsError
        No such file, not TOML, an unknown key, a value of the wrong type, an override without `=`.
    """
    path = Path(path)
    try:
        tree = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise SettingsError(f"no configuration file {path}; copy one from the project's configs/ folder") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None
    for override in overrides:
        _apply(tree, override)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(_explain(path, model, error)) from None


def options_of(section: str, options: Mapping[str, Any], model: type[AnySettings]) -> AnySettings:
    """A free table of a configuration as the settings of who it is for; section: its name, for errors.

    Raises
    ------
    SettingsError
        An option that is not known, or a value that cannot be used.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in (section, *problem["loc"]))
        known = ", ".join(field.alias or name for name, field in model.model_fields.items()) or "none"
        raise SettingsError(f"{key}: {problem['msg']} (found {problem['input']!r}); known options: {known}") from None


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SettingsError(f"cannot read the override {override!r}; write it as section.key=value")
    *sections, last = key.strip().split(".")
    place = tree
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise SettingsError(f"override {override!r}: {section!r} is a value, not a section")
    place[last] = _value(text.strip())


def _value(text: str) -> Any:
    try:  # TOML's own literals, so that a list or a number means the same here as in the file
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(path: Path, model: type[BaseModel], error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        place = [str(part) for part in problem["loc"]]
        key = ".".join(place)
        if problem["type"] == "extra_forbidden":
            allowed = ", ".join(_keys_at(model, place[:-1])) or "none"
            lines.append(f"unknown key {key!r}; allowed there: {allowed}")
        else:
            lines.append(f"{key}: {problem['msg']} (found {problem['input']!r})")
    return f"{path}: " + "; ".join(lines)


def _keys_at(model: type[BaseModel], place: Sequence[str]) -> list[str]:
    current: Any = model
    for part in place:
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            break
        field = current.model_fields.get(part)
        if field is None:  # a key of a free mapping: its values' model is the one to list
            continue
        current = field.annotation
        for argument in getattr(current, "__args__", ()):
            if isinstance(argument, type) and issubclass(argument, BaseModel):
                current = argument
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []
