"""Processes beside a worker for work that no request shall wait for, started when somebody asks for it.

One is told what to do as lines on its standard input and answers with lines on its standard output; it ends when its
input does, and so with its worker. (What a service always needs, whoever asks, is a `serving.companion`.)
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Final

# How long one may take to end in good order.
_END_SECONDS: Final = 5.0
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


async def started(
    module: str, most_bytes: int, *, environment: Mapping[str, str] = _NOTHING, told: bool = False
) -> asyncio.subprocess.Process:
    """A process that runs a module.

    most_bytes: of a line that it answers; environment: beside ours; told: whether what it says on its standard error
    goes where ours goes.
    """
    pipe = asyncio.subprocess.PIPE
    # in a Bento our packages are beside the service, and nothing is installed
    here = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join((here, *os.environ.get("PYTHONPATH", "").split(os.pathsep))).rstrip(os.pathsep)
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module),
        stdin=pipe,
        stdout=pipe,
        stderr=None if told else asyncio.subprocess.DEVNULL,
        limit=most_bytes,
        env={**os.environ, **environment, "PYTHONPATH": path},
    )


async def ended(process: asyncio.subprocess.Process, *, gently: bool = False) -> None:
    """End one; gently: let it notice that nobody asks any more, and let go of what it has open."""
    assert process.stdin is not None
    with suppress(ConnectionError):
        process.stdin.close()
    if gently:
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()
                return
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()
