"""Feature vectors as callers give them, {feature: number or null}, checked and as a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.problems import Problem


def matrix_of(rows: Any, names: Sequence[str], most: int) -> np.ndarray:
    """Rows as float32 (n, F), NaN for null.

    Raises
    ------
    Problem
        422: there are none or more than `most`, a row is no object, or a feature is missing, unknown or not a number.
    """
    if not isinstance(rows, list) or not rows:
        raise Problem(422, 'found no rows; expected {"rows": [{"<feature>": number, ...}, ...]}')
    if len(rows) > most:
        raise Problem(422, f"{len(rows)} rows; at most {most} in one request")
    matrix = np.empty((len(rows), len(names)), np.float32)
    for index, row in enumerate(rows):
        matrix[index] = _vector(index, row, names)
    return matrix


def _vector(index: int, row: Any, names: Sequence[str]) -> list[float]:
    if not isinstance(row, dict):
        raise Problem(422, f"row {index}: expected an object of feature names and numbers")
    values = []
    for name in names:
        if name not in row:
            raise Problem(422, f"row {index}: the feature {name!r} is missing; give every feature, null for missing")
        value = row[name]
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise Problem(422, f"row {index}: {name} is not a number; expected a number or null")
        if value is not None and not abs(value) < 3.4e38:
            raise Problem(422, f"row {index}: {name} is out of the range of a 32-bit float")
        values.append(np.nan if value is None else float(value))
    strangers = set(row) - set(names)
    if strangers:
        raise Problem(422, f"row {index}: unknown feature {sorted(strangers)[0][:80]!r}; see GET /v1/features")
    return values
