"""A fold as text that a model carries, so that a service of another release computes the features it was trained on.

The text is the generated module itself (`features.generate`), which needs nothing of the definitions that it was made
from. It is code, and is run: its hash must be the feature digest that the model is tagged with, as for any MLflow
model who may write to the registry may run code where models are loaded.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Final

from features import memory
from features.compiler import Fold, assemble
from features.declare import Catalogue, CatalogueError, Feature, Field
from features.generate import Generated, generate, layout_of

FILE: Final = "fold.json"
_FORMAT: Final = 1
_MEMORY: Final = re.compile(r"features/memory\.py, ([0-9a-f]{16})")


def dump(fold: Fold) -> str:
    """The fold as JSON.

    >>> from features.compiler import compile_fold
    >>> load(dump(compile_fold()), compile_fold().digest).names == compile_fold().names
    True
    """
    catalogue = fold.catalogue
    generated = generate(catalogue, fold.dtype)
    content = {
        "format": _FORMAT,
        "text": generated.text,
        "fields_text": generated.fields,
        "columns": list(generated.columns),
        "dtype": fold.dtype,
        "fields": [[one.name, one.dtype, one.scope, one.initial, one.doc] for one in catalogue.fields.values()],
        "features": [
            [one.name, one.doc, one.unit, one.group, one.consent, one.table, one.statistic]
            for one in catalogue.features.values()
        ],
    }
    return json.dumps(content, indent=1)


def load(carried: str, digest: str) -> Fold:
    """The fold again, compiled; digest: what its text must hash to.

    Its catalogue knows names, types, tables and documentation; bodies there are none.

    Raises
    ------
    CatalogueError
        It is not a fold, was changed after it was written, or needs another release's `features/memory.py`.
    """
    try:
        content = json.loads(carried)
        if content["format"] != _FORMAT:
            raise CatalogueError(f"the fold has the format {content['format']}; this release reads {_FORMAT}")
        generated = Generated(content["text"], content["fields_text"], tuple(content["columns"]), {})
        catalogue = _catalogue(content)
    except (ValueError, KeyError, TypeError) as error:
        raise CatalogueError(f"not a fold that a model carries: {error!r}") from None
    found = hashlib.sha256(generated.text.encode()).hexdigest()[:16]
    if found != digest:
        raise CatalogueError(f"the fold's text hashes to {found}, not to {digest}: it was changed after training")
    ours = hashlib.sha256(Path(memory.__file__).read_bytes()).hexdigest()[:16]
    theirs = _MEMORY.search(generated.text)
    if theirs is None or theirs[1] != ours:
        raise CatalogueError("the fold was generated for another release's features/memory.py: train again")
    # what is beside the text must fit it, or memory would be written that is not the record's
    layout = layout_of(catalogue.fields.values())
    size = f" {len(catalogue.features)} features in {layout.record_bytes} bytes."
    if not generated.fields.endswith(repr(layout)) or size not in generated.text.partition("\n")[0]:
        raise CatalogueError("the fold's fields are not those of its text: it was changed after training")
    return assemble(catalogue, generated, content["dtype"])


def _catalogue(content: dict[str, Any]) -> Catalogue:
    fields = {
        name: Field(name, dtype, _gone, {}, initial, scope, doc, "a model")
        for name, dtype, scope, initial, doc in content["fields"]
    }
    features = {
        name: Feature(name, None, {}, doc, unit, group, consent, "a model", table, statistic)
        for name, doc, unit, group, consent, table, statistic in content["features"]
    }
    return Catalogue(fields, features)


def _gone() -> float:
    raise CatalogueError("a fold that came with a model has no bodies, only the text they were compiled into")
