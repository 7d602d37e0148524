"""What runs and what was learned, in the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from serving.openapi_parts import ref

Tree = dict[str, Any]

_NUMBER: Final[Tree] = {"type": ["number", "null"]}
_MOMENT: Final[Tree] = {"type": "integer", "minimum": 0, "description": "ms UTC; 0: never, or from ever."}
_OF_EXPERIMENT: Final[Tree] = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": ["draft", "running", "stopped"]},
        "phase": {"type": "integer", "minimum": 1},
        "allocation": {"type": "string"},
        "arms": {"type": "array", "items": {"type": "string"}},
        "killed": {"type": "array", "items": {"type": "string"}},
        "units": {
            "type": "object",
            "description": "Counted in this phase, by arm; null below 50.",
            "additionalProperties": {"type": ["integer", "null"], "minimum": 50},
        },
        "stopped": {
            "type": "array",
            "description": "Arms whose guardrail was surely broken, and what was known then.",
            "items": {
                "type": "object",
                "properties": {
                    **{name: {"type": "string"} for name in ("arm", "goal")},
                    **{name: {"type": "number"} for name in ("worst", "lift", "high")},
                    "at_ms": _MOMENT,
                },
                "required": ["arm", "goal", "at_ms", "worst", "lift", "high"],
            },
        },
        "guardrails": {
            "type": "array",
            "description": "As of now, the lift in the wanted direction with bounds that hold at every look.",
            "items": {
                "type": "object",
                "properties": {
                    **{name: {"type": "string"} for name in ("arm", "goal")},
                    "worst": {"type": "number"},
                    "state": {"type": "string", "enum": ["ok", "watch", "broken"]},
                    **dict.fromkeys(("lift", "low", "high"), _NUMBER),
                },
                "required": ["arm", "goal", "worst", "state", "lift", "low", "high"],
            },
        },
        "sample_ratio": {
            "type": "object",
            "properties": {"p": _NUMBER, "alarm": {"type": "boolean"}},
            "required": ["p", "alarm"],
        },
        "table": {
            "type": "object",
            "description": "Probabilities that hold now, by bin of the score; the last of units without one.",
            "properties": {
                "from_ms": _MOMENT,
                "edges": {"type": "array", "items": {"type": "number"}},
                "bins": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
            },
            "required": ["from_ms", "edges", "bins"],
        },
    },
    "required": ["status", "phase", "allocation", "arms", "killed"],
}
_STATE: Final[Tree] = {
    "type": "object",
    "properties": {
        "configuration": {"type": "string", "description": "Its version."},
        "error": {"type": "string", "description": "Why the file as it is now does not run; empty if it does."},
        "counted_ms": _MOMENT,
        "experiments": {"type": "object", "additionalProperties": ref("ExperimentState")},
    },
    "required": ["configuration", "error", "counted_ms", "experiments"],
}
STATE_EXAMPLE: Final[Tree] = {
    "configuration": "7d0c1c8b1a4e5f60",
    "error": "",
    "counted_ms": 1_770_000_000_000,
    "experiments": {
        "leaving_soon": {
            "status": "running",
            "phase": 2,
            "allocation": "thompson",
            "arms": ["control", "chat", "guide"],
            "killed": [],
            "units": {"control": 1_412, "chat": 890, "guide": None},
            "stopped": [
                {
                    "arm": "guide",
                    "goal": "revenue",
                    "at_ms": 1_769_990_000_000,
                    "worst": -0.05,
                    "lift": -0.31,
                    "high": -0.06,
                }
            ],
            "guardrails": [
                {
                    "arm": "chat",
                    "goal": "revenue",
                    "worst": -0.05,
                    "state": "ok",
                    "lift": 0.02,
                    "low": -0.04,
                    "high": 0.08,
                }
            ],
            "sample_ratio": {"p": 1.0, "alarm": False},
            "table": {"from_ms": 1_769_997_600_000, "edges": [], "bins": [[0.22, 0.78, 0.0], [0.22, 0.78, 0.0]]},
        }
    },
}
SCHEMAS: Final[Tree] = {"ExperimentState": _OF_EXPERIMENT, "ExperimentsState": _STATE}
