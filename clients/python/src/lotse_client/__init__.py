"""Typed client of Lotse: `Client` and `AsyncClient`, an operation of the API a method."""

from __future__ import annotations

from lotse_client.answers import (
    Answer,
    Contribution,
    Decisions,
    Description,
    Erased,
    Evaluated,
    Explanation,
    Flag,
    Flags,
    Held,
    Models,
    RowScores,
)
from lotse_client.asynchronous import AsyncClient
from lotse_client.errors import FieldProblem, LotseError, NotModified, Problem, Refused, Unreachable
from lotse_client.events import Channel, Device, Event, Purpose
from lotse_client.experiments import (
    Configuration,
    ConfigurationVersion,
    ExperimentsState,
    ExperimentState,
    Pushed,
    Running,
    Versions,
)
from lotse_client.streams import Closed, Crossing, Idle, Look, Refetch
from lotse_client.synchronous import Client

__all__ = [
    "Answer",
    "AsyncClient",
    "Channel",
    "Client",
    "Closed",
    "Configuration",
    "ConfigurationVersion",
    "Contribution",
    "Crossing",
    "Decisions",
    "Description",
    "Device",
    "Erased",
    "Evaluated",
    "Event",
    "ExperimentState",
    "ExperimentsState",
    "Explanation",
    "FieldProblem",
    "Flag",
    "Flags",
    "Held",
    "Idle",
    "Look",
    "LotseError",
    "Models",
    "NotModified",
    "Problem",
    "Purpose",
    "Pushed",
    "Refetch",
    "Refused",
    "RowScores",
    "Running",
    "Unreachable",
    "Versions",
]
