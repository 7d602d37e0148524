"""The way through the site: which steps, in which order. Kept for the pictures of journeys; no model sees it.

Exact for the first `features.steps.KEPT_STEPS` steps of a session; of longer ones also how many steps there were, which
kinds, and the last.
"""

from __future__ import annotations

from features.declare import CATALOGUE, field
from features.steps import PATH_WORDS, STEPS_A_WORD, step_of, with_step


@field("i4")
def path_steps(path_steps: int, last_step: int, name: int) -> int:
    """Steps so far: changes from one kind of step to another."""
    return path_steps + (step_of(name) not in (0, last_step))


@field("u1")
def last_step(last_step: int, name: int) -> int:
    """Kind of the latest step."""
    step = step_of(name)
    return step if step != 0 else last_step


@field("i4")
def steps_seen_bits(steps_seen_bits: int, name: int) -> int:
    """Kinds of steps there were, a bit each; the lowest means nothing."""
    return steps_seen_bits | (1 << step_of(name))


def _word(number: int) -> None:
    first = number * STEPS_A_WORD

    def body(word: int, path_steps: int, last_step: int, name: int) -> int:
        return with_step(word, first, path_steps, last_step, step_of(name))

    CATALOGUE.add_field(
        f"path_{number}",
        "i8",
        body,
        doc=f"Steps {first + 1} to {first + STEPS_A_WORD} of the session, four bits each.",
        inputs={"word": f"path_{number}"},
    )


for _number in range(PATH_WORDS):
    _word(_number)
