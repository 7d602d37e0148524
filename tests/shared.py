"""Where the real logs are: beside the project, read in place."""

from __future__ import annotations

from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared"
TAOBAO = SHARED / "data" / "taobao" / "UserBehavior.parquet"
