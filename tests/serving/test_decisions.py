"""The log of decisions: what its lines say, and how they are kept."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from features.settings import SettingsError
from serving.decisions import Decision, named
from serving.engine import Engine
from serving.pseudonyms import DAY_MS
from serving.sessions import Objection, key_of
from serving.settings import load_serving
from tests.serving.in_process import open_engine, post

NOW = 20_000 * DAY_MS + 9 * 3_600_000
VIEW = {"visitor": "jane", "name": "view_item", "item": "sku-1", "price": 20.0, "consent": ["measure", "link"]}


def engine_with(trained: Path | None, folder: Path, *more: str) -> Engine:
    return open_engine(trained, folder, "store.url=memory:", f'decisions.folder="{folder}/decisions"', *more)


def lines(folder: Path) -> list[Decision]:
    """All lines, by file."""
    found = [line for path in sorted((folder / "decisions").glob("*")) for line in path.read_bytes().splitlines()]
    return [msgspec.json.decode(line, type=Decision) for line in found]


def test_a_line_says_what_was_answered_and_why(trained: Path, tmp_path: Path) -> None:
    async def run() -> None:
        engine = engine_with(trained, tmp_path, "decisions.sample=1")
        ((answer,),) = await post(engine, [[VIEW]], NOW)
        await engine.upkeep.log_decisions(NOW)
        (line,) = lines(tmp_path)
        assert line.scores == answer.scores and line.models == answer.models and line.reasons == answer.reasons
        assert line.automated and line.at == NOW
        # the day's pseudonym, though the visitor is linked
        assert line.visitor == named(engine.of_day("jane", NOW)) != named(engine.pseudonyms.at(NOW)("jane", True))
        asked = [head for head in answer.scores if head not in answer.decided and head not in answer.reasons]
        assert asked and set(line.codes) == set(asked)
        for codes in line.codes.values():
            assert 1 <= len(codes) <= 3
            assert {code[0] for code in codes} <= {"+", "-"} and {code[1:] for code in codes} <= set(engine.fold.names)
        (path,) = (tmp_path / "decisions").iterdir()
        assert path.stat().st_mode & 0o777 == 0o600
        await engine.close()

    asyncio.run(run())


@pytest.mark.parametrize(("sample", "expected"), [(0, (0, 0)), (0.3, (220, 380)), (1, (1000, 1000))])
def test_a_share_is_noted(tmp_path: Path, sample: float, expected: tuple[int, int]) -> None:
    async def run() -> None:
        engine = engine_with(None, tmp_path, f"decisions.sample={sample}")
        await post(engine, [[VIEW] * 1000], NOW)
        await engine.close()  # writes what waits
        assert expected[0] <= len(lines(tmp_path)) <= expected[1]

    asyncio.run(run())


def test_files_have_a_length_and_an_end(tmp_path: Path) -> None:
    async def run() -> None:
        engine = engine_with(None, tmp_path, "decisions.sample=1", "decisions.file_mib=0.001", "decisions.kept_days=2")
        for day in range(3):
            for _ in range(3):
                await post(engine, [[VIEW] * 10], NOW + day * DAY_MS)
                await engine.upkeep.log_decisions(NOW + day * DAY_MS)
        assert len(lines(tmp_path)) == 90
        assert len(list((tmp_path / "decisions").iterdir())) == 9  # each is longer than it may be, and not appended to
        # nobody can tell the days to be one visitor's
        assert len({line.visitor for line in lines(tmp_path)}) == 3
        await engine.upkeep.log_decisions(NOW + 3 * DAY_MS)
        assert len(lines(tmp_path)) == 60
        await engine.close()

    asyncio.run(run())


def test_an_objection_is_noted_as_one(tmp_path: Path) -> None:
    async def run() -> None:
        engine = engine_with(None, tmp_path, "decisions.sample=1")
        await post(engine, [[VIEW]], NOW)
        engine.store.apply([Objection(key_of(engine.pseudonyms.at(NOW)("jane", True)), objects=True)])
        await post(engine, [[VIEW]], NOW)
        await engine.upkeep.log_decisions(NOW)
        assert [line.automated for line in lines(tmp_path)] == [True, False]
        assert set(lines(tmp_path)[1].reasons.values()) == {"opted_out"}
        await engine.close()

    asyncio.run(run())


@pytest.mark.parametrize("override", ["decisions.sample=1.5", "store.linked_days=400"])
def test_what_is_too_much_is_refused(override: str) -> None:
    with pytest.raises(SettingsError):
        load_serving(overrides=[override])
