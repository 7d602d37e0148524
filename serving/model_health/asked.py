"""What the process is asked: where models are, and what may be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.settings import ServingSettings


@dataclass(frozen=True)
class Asked:
    """As the service is configured.

    Attributes
    ----------
    uri: of MLflow's store, empty for none; prefix, champion, challenger, heads: of `[models]`.
    closed: folder of the sessions that are over; least_visitors: nothing is told of fewer.
    """

    uri: str
    prefix: str
    champion: str
    challenger: str
    heads: tuple[str, ...]
    closed: str
    least_visitors: int

    @classmethod
    def of(cls, settings: ServingSettings) -> Asked:
        """What a service asks."""
        models = settings.models
        return cls(
            uri=models.uri,
            prefix=models.prefix,
            champion=models.alias,
            challenger=models.challenger,
            heads=tuple(models.heads),
            closed=str(settings.store.closed),
            least_visitors=settings.insight.least_visitors,
        )
