"""LightGBM's own TreeSHAP, by its C API: what each feature adds to the sum of the trees.

LightGBM's Python package brings scikit-learn, SciPy and pandas along: 2.5 s of a worker's start and 90 MB, for
explanations that most workers are never asked for. The library in it needs none of them, and is loaded at the first
explanation; while it computes, the interpreter is free for others.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

# Of LightGBM/c_api.h.
_FLOAT32: Final = 0
_ROW_MAJOR: Final = 1
_CONTRIBUTIONS: Final = 3
_ALL_TREES: Final = -1


class TreeShap:
    """The trees of one head.

    Raises
    ------
    ImportError
        LightGBM is not installed.
    ValueError
        The text is no model of LightGBM's.
    """

    def __init__(self, text: str) -> None:
        self._handle = ctypes.c_void_p()
        rounds = ctypes.c_int()
        handle, count = ctypes.byref(self._handle), ctypes.byref(rounds)
        _done(_library().LGBM_BoosterLoadModelFromString(text.encode(), count, handle))

    def __del__(self) -> None:
        if self._handle:
            _library().LGBM_BoosterFree(self._handle)

    def contributions(self, row: np.ndarray) -> np.ndarray:
        """What each feature adds to the margin, and at the end the baseline: float32 (F,) -> float64 (F + 1,).

        Raises
        ------
        ValueError
            The trees have another number of features.
        """
        row = np.ascontiguousarray(row, np.float32)
        added = np.zeros(len(row) + 1)
        count = ctypes.c_int64()
        _done(
            _library().LGBM_BoosterPredictForMat(
                self._handle, row.ctypes.data_as(ctypes.c_void_p), _FLOAT32,
                ctypes.c_int32(1), ctypes.c_int32(len(row)), _ROW_MAJOR,
                _CONTRIBUTIONS, 0, _ALL_TREES, b"num_threads=1",
                ctypes.byref(count), added.ctypes.data_as(ctypes.POINTER(ctypes.c_double)),
            )
        )  # fmt: skip
        return added


@cache
def _library() -> Any:
    spec = find_spec("lightgbm")
    if spec is None or spec.origin is None:
        raise ImportError("explanations need LightGBM: pip install lightgbm")
    folder = Path(spec.origin).parent
    (path,) = [path for part in ("lib", "bin") for path in (folder / part).glob("lib_lightgbm.*")]
    library = ctypes.CDLL(str(path))
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    return library


def _done(code: int) -> None:
    if code:
        raise ValueError(_library().LGBM_GetLastError().decode())
