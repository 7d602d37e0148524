"""What runs and what was learned, in the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from serving.openapi_parts import ref

Tree = dict[str, Any]

_NUMBER: Final[Tree] = {"type": ["number", "null"]}
_COUNT: Final[Tree] = {"type": ["integer", "null"], "minimum": 50}
_MOMENT: Final[Tree] = {"type": "integer", "minimum": 0, "description": "ms UTC; 0: never, or from ever."}
_BINS: Final[Tree] = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
_EDGES: Final[Tree] = {"type": "array", "items": {"type": "number"}}
_TOLD: Final = ("mean", "control_mean", "lift", "low", "high", "p", "adjusted_p")
_RESULT: Final[Tree] = {
    "type": "object",
    "properties": {
        **{name: {"type": "string"} for name in ("goal", "arm")},
        "verdict": {
            "type": "string",
            "enum": ["better", "worse", "open", "invalid", "few"],
            "description": "invalid: the sample ratio is wrong; few: fewer than 50 units, so nothing else is told.",
        },
        **dict.fromkeys(("units", "control_units"), _COUNT),
        **dict.fromkeys(_TOLD, _NUMBER),
    },
    "required": ["goal", "arm", "verdict", "units", "control_units", *_TOLD],
}
_HISTORY: Final[Tree] = {
    "type": "object",
    "description": "How the allocation of the phase went, for those that `history` names.",
    "properties": {
        "began_ms": _MOMENT,
        "until_ms": _MOMENT,
        "edges": _EDGES,
        "points": {
            "type": "array",
            "description": "By bin of the score the probabilities of the arms outside the holdback, from a moment on.",
            "items": {
                "type": "object",
                "properties": {"from_ms": _MOMENT, "bins": _BINS},
                "required": ["from_ms", "bins"],
            },
        },
        "closed": {
            "type": "array",
            "description": "Arms that are given no longer, by a person or a guardrail of `goal`.",
            "items": {
                "type": "object",
                "properties": {
                    "arm": {"type": "string"},
                    "at_ms": _MOMENT,
                    "why": {"type": "string", "enum": ["killed", "guardrail"]},
                    "goal": {"type": "string"},
                },
                "required": ["arm", "at_ms", "why", "goal"],
            },
        },
    },
    "required": ["began_ms", "until_ms", "edges", "points", "closed"],
}
_OF_EXPERIMENT: Final[Tree] = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": ["draft", "running", "stopped"]},
        "phase": {"type": "integer", "minimum": 1},
        "allocation": {"type": "string"},
        "arms": {"type": "array", "items": {"type": "string"}},
        "killed": {"type": "array", "items": {"type": "string"}},
        "definition": {"type": "object", "description": "Of the configuration, with its defaults."},
        "counted_ms": _MOMENT | {"description": "As of when the following is known, ms UTC."},
        "units": {
            "type": "object",
            "description": "Counted in this phase, by arm; null below 50.",
            "additionalProperties": _COUNT,
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
        "results": {
            "type": "array",
            "description": "Of every goal and arm beside the control, with intervals that hold at every look.",
            "items": _RESULT,
        },
        "table": {
            "type": "object",
            "description": "Probabilities that hold now, by bin of the score; the last of units without one.",
            "properties": {"from_ms": _MOMENT, "edges": _EDGES, "bins": _BINS},
            "required": ["from_ms", "edges", "bins"],
        },
        "history": _HISTORY,
    },
    "required": ["status", "phase", "allocation", "arms", "killed", "definition"],
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
            "definition": {
                "name": "Help for visitors who are about to leave",
                "unit": "session",
                "arms": ["control", "chat", "guide"],
                "shares": [0.4, 0.3, 0.3],
                "holdback": 0.2,
            },
            "counted_ms": 1_770_000_000_000,
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
            "results": [
                {
                    "goal": "purchase",
                    "arm": "chat",
                    "verdict": "open",
                    "units": 861,
                    "control_units": 1_398,
                    "mean": 0.058,
                    "control_mean": 0.052,
                    "lift": 0.115,
                    "low": -0.31,
                    "high": 0.84,
                    "p": 1.0,
                    "adjusted_p": 1.0,
                },
            ],
            "table": {"from_ms": 1_769_997_600_000, "edges": [], "bins": [[0.22, 0.78, 0.0], [0.22, 0.78, 0.0]]},
        }
    },
}
PARAMETERS: Final[Tree] = {
    "History": {
        "name": "history",
        "in": "query",
        "description": "Key of an experiment of which `history` is told, too; may be repeated.",
        "schema": {"type": "array", "maxItems": 32, "items": {"type": "string"}},
        "example": ["leaving_soon"],
    }
}
SCHEMAS: Final[Tree] = {"ExperimentState": _OF_EXPERIMENT, "ExperimentsState": _STATE}
