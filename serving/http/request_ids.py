"""X-Request-Id: the caller's own where it is well-formed, else one of ours, so that both sides can name a request."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Callable
from typing import Final

_WELL_FORMED: Final = re.compile(rb"[\x21-\x7e]{1,128}")


def maker() -> Callable[[], bytes]:
    """Makes ids: this process's random beginning and a number, unlike those of every other process.

    >>> make = maker()
    >>> len(make()), make() == make()
    (22, False)
    """
    begin = secrets.token_hex(6).encode()
    numbers = itertools.count()
    return lambda: b"%s-%09x" % (begin, next(numbers))


def accepted(value: bytes) -> bool:
    """Whether a caller's id is one to 128 visible ASCII characters: it is repeated in the answer, and nothing else is.

    >>> accepted(b"01J8-abc"), accepted(b"two words"), accepted(b"")
    (True, False, False)
    """
    return _WELL_FORMED.fullmatch(value) is not None
