"""The service of `lotse demo`: started as a process of its own, waited for, ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from features.settings import SettingsError

if TYPE_CHECKING:
    from rich.console import Console

LOTSE: Final = (sys.executable, "-c", "from features.cli import main; main()")
LOG: Final = Path("lotse-data/serve.log")
_START_SECONDS: Final = 90


class DemoService:
    """`lotse serve` on a port of this machine, for this machine alone: so it may be without keys."""

    def __init__(self, port: int, overrides: Sequence[str] = ()) -> None:
        self.url = f"http://127.0.0.1:{port}"
        command = [*LOTSE, "serve", "--host", "127.0.0.1", "--port", str(port)]
        for override in ("keys.required=false", *overrides):
            command += ["--set", override]
        LOG.parent.mkdir(exist_ok=True)
        with LOG.open("w") as file:
            self._process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait_until_ready(self, console: Console) -> None:
        """Return when every head is served.

        Raises
        ------
        SettingsError
            It ended, or is not ready in time.
        """
        import httpx  # noqa: PLC0415

        begin = time.monotonic()
        with console.status("starting the service"):
            while time.monotonic() - begin < _START_SECONDS:
                if not self.runs:
                    raise SettingsError(
                        f"the service ended at once; its log is {LOG}. Is the port taken? Try --port 3100"
                    )
                try:
                    if httpx.get(f"{self.url}/readyz", timeout=2).status_code == httpx.codes.OK:
                        console.print(f"the service was ready after {time.monotonic() - begin:.1f} s")
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.2)
        raise SettingsError(f"the service was not ready after {_START_SECONDS} s; its log is {LOG}")

    def stop(self) -> None:
        """End it by its own process id; its workers follow."""
        if self.runs:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self._process.kill()
