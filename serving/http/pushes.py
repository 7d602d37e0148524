"""Pushes of the configuration of flags and experiments, their history, and the way back; for secret keys only."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from features.settings import SettingsError
from serving.access import refuse_pages
from serving.experiments.history import merged
from serving.experiments.pushing import Change, OtherVersionError, Pushed, Pushing, RefusedError, TooLongError
from serving.http.call import Call, Handler, Reply
from serving.http.events import JSON, encode
from serving.http.query import switch
from serving.problems import Problem

EXPERIMENTS: Final = "/v1/experiments"
VERSIONS: Final = f"{EXPERIMENTS}/versions"
VERSION: Final = f"{VERSIONS}/{{version}}"
ROLLBACK: Final = f"{EXPERIMENTS}/rollback"


async def show(call: Call) -> Reply:
    """What runs, and what keeps the file from running if it is another one."""
    call.query()
    experiments = call.engine.experiments
    configuration = experiments.configuration
    told = {
        "version": configuration.version,
        "written_at": experiments.written_ms,
        "error": experiments.error,
        "configuration": configuration.content,
    }
    return Reply(JSON, encode(told), headers=(_tag(configuration.version),))


async def replace(call: Call) -> Reply:
    """Another configuration as a whole."""
    content = await _body(call)
    return await _pushed(call, lambda there: content, "put")


async def change(call: Call) -> Reply:
    """Parts of it, as a JSON merge patch."""
    patch = await _body(call)
    return await _pushed(call, lambda there: merged(there, patch), "patch")


async def roll_back(call: Call) -> Reply:
    """A version that was there before; an experiment goes on in the phase that it then had, as it then was."""
    wanted = call.query("version", "dry_run").get("version", [""])[-1]
    history, current = _pushing(call).history, call.engine.experiments.configuration.version
    if wanted:
        found = await asyncio.to_thread(history.find, wanted)
    else:
        found = await asyncio.to_thread(lambda: next((a for a in history.newest_first() if a.version != current), None))
    if found is None:
        raise Problem(404, f"no such version is kept; {VERSIONS} lists those that are")
    return await _pushed(call, lambda there: found.configuration, "rollback", phases=False)


async def versions(call: Call) -> Reply:
    """What was pushed, the newest first."""
    call.query()
    current = call.engine.experiments.configuration.version
    found = await asyncio.to_thread(lambda: list(_pushing(call).history.newest_first()))
    for one in found:
        one.configuration = None
    return Reply(JSON, encode({"version": current, "versions": found}))


async def version(call: Call) -> Reply:
    """One of them, with its configuration."""
    call.query()
    found = await asyncio.to_thread(_pushing(call).history.find, call.rest)
    if found is None:
        raise Problem(404, f"no such version is kept; {VERSIONS} lists those that are")
    return Reply(JSON, encode(found), headers=(_tag(found.version),))


ROUTES: Final[dict[str, dict[str, Handler]]] = {
    EXPERIMENTS: {"GET": show, "PUT": replace, "PATCH": change},
    VERSIONS: {"GET": versions},
    VERSION: {"GET": version},
    ROLLBACK: {"POST": roll_back},
}


def _pushing(call: Call) -> Pushing:
    engine = call.engine
    return Pushing(engine.settings.experiments, engine.experiments, engine.settings.server.body_limit_bytes)


async def _body(call: Call) -> Any:
    try:
        return msgspec.json.decode(await call.body())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, f"the body is not JSON: {error}") from None


async def _pushed(call: Call, content: Change, how: str, *, phases: bool = True) -> Reply:
    """Push, and have it run here at once; the other workers follow within a second.

    Raises
    ------
    Problem
        403: a page of another origin asks, without a key; 412, 413, 422, 503: as of `Pushing.push`.
    """
    refuse_pages(call)
    known = ("version", "dry_run") if how == "rollback" else ("dry_run",)
    dry_run, key = switch(call.query(*known), "dry_run"), call.admission.key
    expected = call.header(b"if-match").decode("latin-1").strip().removeprefix("W/").strip('"')
    expected = "" if expected == "*" else expected

    def push() -> Pushed:
        by = key.id if key is not None else ""
        return _pushing(call).push(content, how, by, expected=expected, dry_run=dry_run, phases=phases)

    try:
        pushed = await asyncio.to_thread(push)
    except RefusedError as error:
        raise Problem(422, str(error), changes=error.changes) from None
    except SettingsError as error:
        raise Problem(422, str(error)) from None
    except RecursionError:
        raise Problem(422, "the configuration is nested too deep") from None
    except OtherVersionError as error:
        detail = f"the configuration is of version {error.version}; look at it and push again"
        raise Problem(412, detail, version=error.version) from None
    except TooLongError as error:
        raise Problem(413, str(error)) from None
    except OSError as error:
        raise Problem(
            503,
            f"the configuration cannot be written here ({error.strerror}); see experiments.file and "
            "experiments.history in configs/serving.toml",
        ) from None
    await call.engine.experiments.follow()
    return Reply(JSON, encode(pushed), headers=(_tag(pushed.version),))


def _tag(version: str) -> tuple[bytes, bytes]:
    return b"etag", b'"%b"' % version.encode()
