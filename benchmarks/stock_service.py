"""A stock BentoML service that does nothing: the rival of benchmarks/serving.py; asynchronous is its faster kind."""

from __future__ import annotations

import bentoml


@bentoml.service(name="stock", workers=1)
class Stock:
    """BentoML as it comes."""

    @bentoml.api  # type: ignore[untyped-decorator,unused-ignore]
    async def noop(self) -> str:
        """Nothing."""
        return "noop"
