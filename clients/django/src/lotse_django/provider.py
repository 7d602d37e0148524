"""OpenFeature: its SDK's own OFREP provider, over this package's connection and within its deadline.

The provider alone waits for each byte anew, and would ask a service that is away again and again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any, Final

from lotse_django.client import Client, UnavailableError
from lotse_django.lotse import Lotse

try:
    import requests
    from openfeature import api
    from openfeature.contrib.provider.ofrep import OFREPProvider
    from openfeature.evaluation_context import EvaluationContext
    from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType
    from openfeature.transaction_context import ContextVarsTransactionContextPropagator
    from requests.adapters import BaseAdapter, HTTPAdapter
    from urllib3 import HTTPResponse
except ImportError as error:
    raise ImportError("OpenFeature is not installed; pip install lotse-django[openfeature]") from error

_NOBODY: Final = EvaluationContext()


class _Adapter(BaseAdapter):
    """Sends what the provider asks through our client."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self._client, self._own = client, HTTPAdapter()

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """The answer.

        Raises
        ------
        requests.ConnectionError
            There was none in time; the provider then gives the default.
        """
        content = request.body if isinstance(request.body, bytes) else str(request.body or "").encode()
        headers = {"content-type": "application/json"}
        try:
            told = self._client.fetch(str(request.method), str(request.url), content, headers)
        except UnavailableError as error:
            raise requests.ConnectionError(f"Lotse: {error.reason}", request=request) from None
        raw = HTTPResponse(BytesIO(told.content), headers=told.headers, status=told.status, preload_content=False)
        return self._own.build_response(request, raw)

    def close(self) -> None:
        """Nothing is held."""


class LotseProvider(OFREPProvider):
    """The provider; its asynchronous calls leave the loop free."""

    def __init__(self, client: Client) -> None:
        super().__init__(client.settings.url)
        self.session.mount(client.settings.url, _Adapter(client))

    async def resolve_boolean_details_async(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        """As without `_async`, in a thread; so are the others."""
        return await asyncio.to_thread(self.resolve_boolean_details, flag_key, default_value, evaluation_context)

    async def resolve_string_details_async(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """A text."""
        return await asyncio.to_thread(self.resolve_string_details, flag_key, default_value, evaluation_context)

    async def resolve_integer_details_async(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """A whole number."""
        return await asyncio.to_thread(self.resolve_integer_details, flag_key, default_value, evaluation_context)

    async def resolve_float_details_async(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """A number."""
        return await asyncio.to_thread(self.resolve_float_details, flag_key, default_value, evaluation_context)

    async def resolve_object_details_async(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Sequence[FlagValueType] | Mapping[str, FlagValueType]]:
        """Anything else."""
        return await asyncio.to_thread(self.resolve_object_details, flag_key, default_value, evaluation_context)


def provide(client: Client) -> None:
    """Have OpenFeature's API ask the service, for whom `evaluated_for` says."""
    api.set_provider(LotseProvider(client))
    api.set_transaction_context_propagator(ContextVarsTransactionContextPropagator())


@contextmanager
def evaluated_for(lotse: Lotse) -> Iterator[None]:
    """Within it flags are those of a request's session; without one they are what the context says."""
    session = lotse.session
    api.set_transaction_context(EvaluationContext(targeting_key=session) if session else _NOBODY)
    try:
        yield
    finally:
        api.set_transaction_context(_NOBODY)  # the thread goes on with somebody else's request
