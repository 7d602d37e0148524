"""A throw-away PostgreSQL server for tests: Debian's binaries, a folder of its own, gone at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

PASSWORD = "s3cret/pass:word"


def server_binaries() -> Path:
    """The folder of the newest installed server.

    Raises
    ------
    RuntimeError
        There is none.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise RuntimeError("no PostgreSQL server is installed; run: apt-get install postgresql")
    return found[-1].parent


@contextmanager
def postgres() -> Iterator[str]:
    """The SQLAlchemy URL (password included) of an empty database on a server that runs until the end of the `with`."""
    binaries = server_binaries()
    # not pytest's own folder: its parents are closed to the user that the server runs as
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    password = folder / "password"
    password.write_text(PASSWORD)
    identity = _identity(folder, password)
    data = folder / "data"
    made = subprocess.run(
        [binaries / "initdb", "--pgdata", data, "--username", "reader", "--auth", "scram-sha-256", "--pwfile", password,
         "--no-sync", "--no-locale", "--encoding", "UTF8"],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False, **identity,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # a zone far from UTC, so that a test sees a time that was taken for local
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [binaries / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", folder,
             "-c", "fsync=off", "-c", "timezone=America/New_York"],
            cwd=folder, stdout=log, stderr=log, **identity,
        )  # fmt: skip
    try:
        _wait(server, folder / "log")
        yield f"postgresql+psycopg://reader:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # "fast": ends sessions that are still open
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(timeout=20)
        shutil.rmtree(folder)


def _identity(*owned: Path) -> dict[str, Any]:
    """Whom the server runs as: it refuses root, so Debian's own user then, who gets the paths `owned`."""
    if os.getuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    for path in owned:
        os.chown(path, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _wait(server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        # it listens a little before it lets anybody in
        if "ready to accept connections" in log.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"not ready: {log.read_text()}")
