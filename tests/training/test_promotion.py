"""Moving the champion's alias: only from the one compared with, one at a time, and back; on SQLite and on PostgreSQL.

The versions here hold nothing: what is in a model does not matter for moving its alias.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.postgres import postgres
from tests.workspace import ROOT, environment
from training.config import TrackingSettings
from training.promotion import STALE_LOCK_MS, PromotionError, one_at_a_time, promote, rollback
from training.tracking import connect

SETTINGS = TrackingSettings()
LOCK = "lotse-exit--promoting"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db"
    else:
        with postgres() as url:
            yield url


@pytest.fixture(scope="module")
def registry(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        artifacts = str(tmp_path_factory.mktemp("artifacts"))
        return connect(SETTINGS.model_copy(update={"artifacts": artifacts})).MlflowClient()


@pytest.fixture
def client(registry: Any) -> Iterator[Any]:
    """A registry in which the exit head has three versions, the first of them champion, the last the candidate."""
    with_versions(registry, "exit", 3)
    yield registry
    for model in registry.search_registered_models():
        registry.delete_registered_model(model.name)


def with_versions(registry: Any, head: str, count: int) -> None:
    registry.create_registered_model(f"lotse-{head}")
    for _ in range(count):
        registry.create_model_version(f"lotse-{head}", source="/nowhere")
    registry.set_registered_model_alias(f"lotse-{head}", SETTINGS.alias, "1")
    registry.set_registered_model_alias(f"lotse-{head}", SETTINGS.candidate_alias, str(count))


def aliases(client: Any, head: str = "exit") -> dict[str, str]:
    return {alias: str(number) for alias, number in client.get_registered_model(f"lotse-{head}").aliases.items()}


def tags(client: Any, version: str) -> dict[str, str]:
    return dict(client.get_model_version("lotse-exit", version).tags)


def models(client: Any) -> set[str]:
    return {model.name for model in client.search_registered_models()}


def anything(version: object) -> None:
    """Every version may be gone back to."""


def test_a_promotion_moves_the_alias_and_says_so_on_both_versions(client: Any) -> None:
    promote(client, SETTINGS, "exit", "3", instead_of="1", tags={"gate": "passed"})
    assert aliases(client) == {"champion": "3"}
    assert tags(client, "3")["promoted_from"] == "1"
    assert tags(client, "3")["gate"] == "passed"
    assert tags(client, "3")["promoted_at"] == tags(client, "1")["replaced_at"]
    assert tags(client, "1")["replaced_by"] == "3"
    assert models(client) == {"lotse-exit"}  # the lock is given back


def test_the_first_champion_replaces_nobody(client: Any) -> None:
    client.delete_registered_model_alias("lotse-exit", "champion")
    promote(client, SETTINGS, "exit", "3", instead_of=None, tags={})
    assert aliases(client) == {"champion": "3"}
    assert tags(client, "3")["promoted_from"] == ""


def test_a_candidate_registered_meanwhile_stays_candidate(client: Any) -> None:
    promote(client, SETTINGS, "exit", "2", instead_of="1", tags={})
    assert aliases(client) == {"champion": "2", "challenger": "3"}


@pytest.mark.parametrize(("compared_with", "told"), [("2", "was version 2"), (None, "was no version")])
def test_only_the_champion_that_was_compared_with_is_replaced(
    client: Any, compared_with: str | None, told: str
) -> None:
    with pytest.raises(PromotionError, match=f"{told} when version 3 was compared with it and is version 1 now"):
        promote(client, SETTINGS, "exit", "3", instead_of=compared_with, tags={"gate": "passed"})
    assert aliases(client) == {"champion": "1", "challenger": "3"}
    assert tags(client, "3") == {}
    assert models(client) == {"lotse-exit"}


def test_while_one_promotes_another_is_refused_and_told_who(client: Any) -> None:
    with one_at_a_time(client, "lotse-exit"):
        with pytest.raises(PromotionError, match=r"another promotion is under way by .*, process \d+ since 20"):
            promote(client, SETTINGS, "exit", "3", instead_of="1", tags={})
        with one_at_a_time(client, "lotse-bounce"):  # another head is another matter
            pass
    assert aliases(client)["champion"] == "1"
    promote(client, SETTINGS, "exit", "3", instead_of="1", tags={})


def test_a_lock_is_given_back_when_a_promotion_fails(client: Any) -> None:
    with pytest.raises(ZeroDivisionError), one_at_a_time(client, "lotse-exit"):
        raise ZeroDivisionError
    assert models(client) == {"lotse-exit"}


def left_lock(client: Any, age_ms: int) -> None:
    since = time.time_ns() // 1_000_000 - age_ms
    client.create_registered_model(LOCK, {"holder": "dead", "since": str(since), "by": "somebody"})


def test_a_lock_is_waited_for_until_it_is_an_hour_old(client: Any) -> None:
    left_lock(client, STALE_LOCK_MS - 60_000)
    with pytest.raises(PromotionError, match="another promotion is under way by somebody"):
        promote(client, SETTINGS, "exit", "3", instead_of="1", tags={})


def test_a_stale_lock_is_taken_over_once_only(client: Any) -> None:
    """Who looked at the stale lock before it was taken over cannot take away the lock that came after it."""
    left_lock(client, STALE_LOCK_MS + 60_000)
    late: list[Exception] = []

    class Late:
        """A second process that saw the stale lock, and comes to move it away after the first has."""

        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        def rename_registered_model(self, old: str, new: str) -> None:
            with one_at_a_time(client, "lotse-exit") as still_held:
                try:
                    client.rename_registered_model(old, new)
                except Exception as error:
                    late.append(error)
                    raise
                finally:
                    still_held()

    with pytest.raises(PromotionError, match="has taken over the stale lock"), one_at_a_time(Late(), "lotse-exit"):
        pass
    assert len(late) == 1
    promote(client, SETTINGS, "exit", "3", instead_of="1", tags={})
    assert aliases(client) == {"champion": "3"}
    assert models(client) == {"lotse-exit", f"{LOCK}-dead"}


def test_who_lost_the_lock_moves_nothing_and_leaves_the_new_one(client: Any) -> None:
    with one_at_a_time(client, "lotse-exit") as still_held:
        client.rename_registered_model(LOCK, f"{LOCK}-slow")
        left_lock(client, 0)
        with pytest.raises(PromotionError, match="was taken over"):
            still_held()
    assert models(client) == {"lotse-exit", LOCK, f"{LOCK}-slow"}


RACER = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from mlflow import MlflowClient
from training.config import TrackingSettings
from training.promotion import PromotionError, promote
client, settings = MlflowClient(), TrackingSettings()
client.search_registered_models()  # connected
print("ready", flush=True)
begin = float(sys.stdin.readline())
for round in range(int(sys.argv[2])):
    time.sleep(max(begin + round * 0.5 - time.time(), 0))
    try:
        promote(client, settings, f"race{{round}}", sys.argv[1], instead_of="1", tags={{}})
        print("won", flush=True)
    except PromotionError as error:
        print("lost:", error, flush=True)
"""


@pytest.mark.slow
def test_of_two_racing_promotions_one_wins(client: Any, uri: str) -> None:
    """Two processes, each with a candidate that stood the comparison with version 1, at the same moment, ten times."""
    rounds = 10
    for number in range(rounds):
        with_versions(client, f"race{number}", 3)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, version, str(rounds)],
            env=environment() | {"MLFLOW_TRACKING_URI": uri},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for version in ("2", "3")
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
    begin = time.time() + 0.3
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write(f"{begin}\n")
        racer.stdin.flush()
    said = []
    for racer in racers:
        out, err = racer.communicate(timeout=60)
        assert racer.returncode == 0, err
        said.append(out.splitlines())
    for number, (of_two, of_three) in enumerate(zip(*said, strict=True)):
        assert [of_two, of_three].count("won") == 1, (of_two, of_three)
        winner = "2" if of_two == "won" else "3"
        assert aliases(client, f"race{number}")["champion"] == winner
        lost = of_three if winner == "2" else of_two
        assert "another promotion is under way" in lost or f"is version {winner} now" in lost
        former = client.get_model_version(f"lotse-race{number}", "1")
        assert former.tags["replaced_by"] == winner
    assert models(client) == {"lotse-exit", *(f"lotse-race{number}" for number in range(rounds))}


def test_going_back_twice_goes_back_two_versions(client: Any) -> None:
    promote(client, SETTINGS, "exit", "2", instead_of="1", tags={})
    promote(client, SETTINGS, "exit", "3", instead_of="2", tags={})
    assert rollback(client, SETTINGS, "exit", None, anything) == ("3", "2")
    assert aliases(client) == {"champion": "2"}
    assert tags(client, "3")["rolled_back_to"] == "2"
    assert tags(client, "3")["rolled_back_at"] == tags(client, "2")["restored_at"]
    assert rollback(client, SETTINGS, "exit", None, anything) == ("2", "1")
    with pytest.raises(PromotionError, match=r"version 1 was promoted instead of no other.*--to VERSION.*1, 2, 3"):
        rollback(client, SETTINGS, "exit", None, anything)


def test_what_was_left_can_be_promoted_again_and_left_again(client: Any) -> None:
    promote(client, SETTINGS, "exit", "3", instead_of="1", tags={})
    rollback(client, SETTINGS, "exit", None, anything)
    promote(client, SETTINGS, "exit", "3", instead_of="1", tags={})
    assert rollback(client, SETTINGS, "exit", None, anything) == ("3", "1")


def test_one_may_go_to_any_version_and_back_to_the_one_left(client: Any) -> None:
    promote(client, SETTINGS, "exit", "3", instead_of="1", tags={})
    assert rollback(client, SETTINGS, "exit", "2", anything) == ("3", "2")
    assert rollback(client, SETTINGS, "exit", None, anything) == ("2", "3")
    assert rollback(client, SETTINGS, "exit", None, anything) == ("3", "1")


def refuse(version: Any) -> None:
    raise PromotionError(f"version {version.version} is broken")


@pytest.mark.parametrize(
    ("to", "usable", "message"),
    [
        ("9", anything, "lotse-exit has no version 9; .*there are: 1, 2, 3"),
        ("two", anything, "lotse-exit has no version two"),
        ("1", anything, "version 1 is the champion already"),
        ("2", refuse, "version 2 is broken"),
    ],
)
def test_what_cannot_be_gone_back_to_is_refused(
    client: Any, to: str, usable: Callable[[Any], None], message: str
) -> None:
    with pytest.raises(PromotionError, match=message):
        rollback(client, SETTINGS, "exit", to, usable)
    assert aliases(client)["champion"] == "1"
    assert models(client) == {"lotse-exit"}


def test_without_a_champion_there_is_no_way_back(client: Any) -> None:
    client.delete_registered_model_alias("lotse-exit", "champion")
    with pytest.raises(PromotionError, match="no version with the alias 'champion'"):
        rollback(client, SETTINGS, "exit", None, anything)
