"""What `collect.options` holds for one tracker, as the tracker's own settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from features.settings import Settings, SettingsError

Options = TypeVar("Options", bound=Settings)


def options_of(tracker: str, options: Mapping[str, Any], model: type[Options]) -> Options:
    """The options, typed.

    Raises
    ------
    SettingsError
        An option that the tracker does not know, or a value that it cannot use.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in (tracker, *problem["loc"]))
        known = ", ".join(model.model_fields) or "none"
        raise SettingsError(
            f"collect.options.{key}: {problem['msg']} (found {problem['input']!r}); known options: {known}"
        ) from None
