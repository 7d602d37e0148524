"""What `[collect.options.segment]` of configs/serving.toml may hold."""

from __future__ import annotations

from pydantic import Field, field_validator

from features.settings import Settings


class IdentifyOptions(Settings):
    """What `[collect.options.segment.identify]` may hold.

    write_key: of a source of Segment's; endpoint: takes its batches. thresholds: by head, a score that crosses one is
    told, such as `{ conversion = [0.1, 0.3] }`. step: a score that is so far from what was told is told, too; 0: only
    crossings are. seconds: least time between two calls for one visitor. kept_seconds: how long a call is tried.
    waiting: most visitors whose scores wait; of more the oldest are given up. pause_seconds: between two requests, for
    all visitors; timeout_seconds: for an answer.
    """

    write_key: str = Field(min_length=1)
    endpoint: str = Field("https://api.segment.io/v1/batch", pattern=r"^https?://")
    thresholds: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    step: float = Field(0.1, ge=0, le=1)
    seconds: float = Field(30, ge=0)
    kept_seconds: float = Field(300, gt=0)
    waiting: int = Field(10_000, ge=1)
    pause_seconds: float = Field(1, gt=0)
    timeout_seconds: float = Field(10, gt=0)

    @field_validator("thresholds")
    @classmethod
    def _rising(cls, thresholds: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        for head, values in thresholds.items():
            if not all(0 < value < 1 for value in values):
                raise ValueError(f"thresholds.{head} holds {list(values)}; expected scores between 0 and 1")
        return {head: tuple(sorted(values)) for head, values in thresholds.items()}


class SegmentOptions(Settings):
    """The whole of it.

    write_keys: whose calls are used and who is given settings; none: everybody's.
    api_host: where browsers send their calls, without a scheme, such as `collect.shop.example/v1`; by default the host
        that they ask for the settings.
    identify: scores back to Segment; off where there is no such table.
    """

    write_keys: tuple[str, ...] = ()
    api_host: str = ""
    identify: IdentifyOptions | None = None
