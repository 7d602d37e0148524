"""`lotse watch`: whom it tells what, one at a time, and what it says of a round."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from features.cli import build_app
from features.settings import SettingsError
from tests.receiver import receiving
from tests.training.test_drift import bounds, window
from training.closed_loop import Round, alone
from training.config import TrainingSettings
from training.decision import Decision
from training.drift import compare
from training.heads import heads_of
from training.histogram import Histogram
from training.watch import Watched
from training.watch_cli import ALARM, CANNOT_TELL, WELL, _told, seconds_of

QUIET = Console(quiet=True)
EXIT = heads_of(TrainingSettings())["exit"]


def watched(**shift: float) -> Watched:
    """A champion beside a later window in which features may have shifted."""
    before, score = window(np.random.default_rng(0), 2_000)
    histogram = Histogram.of(before, score)
    later, score = window(np.random.default_rng(1), 2_000, **shift)
    return Watched(EXIT, "3", histogram, compare(histogram, later, score, bounds()))


def test_alarms_and_promotions_are_posted_and_nothing_else() -> None:
    well = Round("now", 9, (), (watched(),), (Decision("exit", "4", "3", ("too young",), "", None),))
    alarm = Round("now", 9, (), (watched(cart_value=2.0),))
    promoted = Round("now", 9, (), decisions=(Decision("exit", "4", "3", (), "passed", None),))
    nothing = Round("now", 9, (), without={"exit": ["too few sessions"]})
    with receiving() as receiver:
        codes = [_told(one, f"{receiver.url}/hook", QUIET, as_json=False) for one in (well, alarm, promoted, nothing)]
        assert codes == [WELL, ALARM, WELL, CANNOT_TELL]
        about_alarm, about_promotion = (one.body for one in receiver.received)
    assert about_alarm["text"].startswith("Lotse: exit version 3: feature cart_value: PSI")
    assert about_alarm["round"]["alarms"] == alarm.alarms and len(alarm.alarms) == 1
    assert about_promotion["text"] == "Lotse: exit version 4 is the champion"
    # a receiver that is away changes nothing
    assert _told(alarm, receiver.url, QUIET, as_json=False) == ALARM


def test_a_round_as_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert _told(Round("now", 9, ("2 treated",), (watched(),)), "", QUIET, as_json=True) == WELL
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["left_out"] == ["2 treated"] and found["watched"]["exit"]["drifted"] is False


def test_one_at_a_time(tmp_path: Path) -> None:
    with alone(tmp_path / "lock"), pytest.raises(SettingsError, match="another lotse watch"), alone(tmp_path / "lock"):
        pass
    with alone(tmp_path / "lock"):
        pass


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    """A scheduler that asks too early is told so, and gets no alarm."""
    sets = [
        word for one in ("tracking.uri=sqlite:///none.db", f"watch.lock={tmp_path}/lock") for word in ("--set", one)
    ]
    done = CliRunner().invoke(build_app(), ["watch", "--events", str(tmp_path), *sets])
    assert done.exit_code == CANNOT_TELL
    assert "holds no session to learn from" in done.output


@pytest.mark.parametrize("text", ["", "1", "h", "0h", "1w", "-1h"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(SettingsError, match="such as 1h"):
        seconds_of(text)
