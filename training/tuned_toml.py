"""What a search found as TOML: sections `[tuned.<head>]`, in a file of their own or in the configuration itself."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

from features.settings import SettingsError
from training.tuning import Tuned

_HEAD = "# Found by lotse tune: "


def write_tuned(path: Path, found: Sequence[Tuned]) -> None:
    """Put a section a head into the file, in the place of an earlier one; everything else stays as it is.

    Raises
    ------
    SettingsError
        The file is not TOML, or says it in another way that cannot be replaced.
    """
    text = path.read_text() if path.exists() else ""
    for one in found:
        text = _without(text, one.head).rstrip("\n")
        text = f"{text}\n\n{section(one)}" if text else section(one)
    try:
        tuned = tomllib.loads(text).get("tuned", {})
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            f"{path}: what it says of [tuned] cannot be replaced ({error}); take that out, and try again"
        ) from None
    for one in found:
        if tuned.get(one.head) != one.values:
            raise SettingsError(f"{path}: tuned.{one.head} cannot be replaced; take it out, and try again")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def section(one: Tuned) -> str:
    """The section of one head.

    >>> tuned = Tuned("exit", "exit-0", 0.5, 0.4, {"num_leaves": 31}, {"num_leaves": 7}, 9, 3)
    >>> print(section(tuned), end="")
    # Found by lotse tune: loss of the inner folds 0.50000 -> 0.40000 in 12 trials.
    [tuned.exit]
    num_leaves = 7
    """
    lines = [f"{name} = {value!r}" for name, value in one.values.items()]
    summary = f"loss of the inner folds {one.before:.5f} -> {one.after:.5f} in {one.complete + one.pruned} trials."
    return "\n".join([_HEAD + summary, f"[tuned.{one.head}]", *lines]) + "\n"


def _without(text: str, head: str) -> str:
    """The text without the head's section and the line that we wrote above it."""
    ours = rf"(?:^{re.escape(_HEAD)}.*\n)?"
    keys = r"(?:[^\[#\n].*\n?)*"
    return re.sub(rf"{ours}^\[tuned\.{re.escape(head)}\].*\n?{keys}", "", text, flags=re.MULTILINE)
