"""The catalogue: every module of this folder declares a group of features; the group is the module's name.

Modules are found, not listed: adding a feature edits one file.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from features.declare import CATALOGUE

for _module in sorted(module.name for module in iter_modules(__path__)):
    import_module(f"{__name__}.{_module}")

CATALOGUE.check()

__all__ = ["CATALOGUE"]
