"""Makes the synchronous client from the asynchronous one, so that there is one to maintain.

python clients/python/make_sync.py
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "src" / "lotse_client"
MADE: Final = FOLDER / "synchronous.py"
ROOT: Final = Path(__file__).resolve().parents[2]
# In this order, as whole words.
_WORDS: Final = {
    r"async (def|with|for)\b": r"\1",
    r"await ": "",
    r"\bAsync(Client|Iterator|Retrying)\b": r"\1",
    r"\b__a(enter|exit)__\b": r"__\1__",
    r"\ba(close|read|connect_sse|iter_sse)\b": r"\1",
    r"\basyncio\b": "time",
    r'^""".*?"""': '"""The synchronous client, made from `asynchronous.py` by `make_sync.py`."""',
}


def made() -> str:
    """The text of `synchronous.py`, laid out by ruff."""
    text = (FOLDER / "asynchronous.py").read_text()
    for pattern, words in _WORDS.items():
        text = re.sub(pattern, words, text)
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check", "--select=I", "--fix", "--quiet"], ["format", "--quiet"]):
        run = [*ruff, *command, f"--stdin-filename={MADE}", "-"]
        text = subprocess.run(run, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return text


if __name__ == "__main__":
    MADE.write_text(made())
