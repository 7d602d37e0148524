"""The whole loop over HTTP on the simulated shop: flags, a crowd that reacts, sessions that are over, reports, uplift.

    python -m benchmarks.loop [--visitors 60000] [--only planted,uplift,learning] [--events 100000]
        [--pictures docs/experiments] [--folder FOLDER]

Models are trained on the shop's history; then `lotse serve` runs with experiments whose rules ask live scores, and the
shop's next visitors come (`simulation.crowd.browse_in_step`), ask for flags with their events and react to what they
are shown by effects that were planted (`simulation.persuasion`). What is read is what the service hands on: the files
of sessions that are over. Regret is the probability of a purchase that was missed beside the best arm for each visitor,
by the shop's own truth, per 1,000 visitors exposed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from benchmarks.measure import console, report
from features.experiments import load_experiments
from simulation.crowd import Visit, browse_in_step, visits_of_shop
from simulation.persuasion import Lift, Persuasion, no_lift
from simulation.shop import simulate
from tests.workspace import Service, lotse, wait_until, workspace
from training.experiments.analysis import Analysis, analyse
from training.experiments.closed import units_of_closed
from training.experiments.report import report_page
from training.experiments.srm import sample_ratios
from training.experiments.table import units_of

PARTS: Final = ("planted", "uplift", "learning")
HEADS: Final = ("bounce", "conversion", "exit")
TESTS_OF_NOTHING: Final = 8
LIFT: Final = 0.2
# Seconds that a table of probabilities holds for in `learning`.
_PERIOD: Final = 4
_WAVES: Final = 10
PURCHASE: Final = {"name": "purchase", "column": "purchases", "primary": True}
REVENUE: Final = {"name": "revenue", "kind": "revenue", "column": "revenue"}


# Some pages in, and not about to leave.
MOMENT: Final = {"events": {"$gte": 5}, "exit": {"$lt": 0.8}}


def by_risk(truth: Mapping[str, float]) -> float:
    """Wins four in a hundred of those who would hardly buy, and bothers a quarter of those who would anyway."""
    chance = truth["conversion"]
    if chance >= 0.1:
        return -0.25
    return 0.04 / chance if chance > 0.001 else 0.0


def long_visits(visitors: int, seed: int) -> list[Visit]:
    """The visits of so many visitors that are long enough: others would never be exposed."""
    visits = visits_of_shop(simulate(visitors=visitors, seed=seed))
    return [one for one in visits if len(one.events) >= 5]


class Shop:
    """A folder with trained models, and the service in it."""

    def __init__(self, folder: Path, events: int, pictures: Path | None) -> None:
        self.folder, self.pictures = folder / "work", pictures
        if not (self.folder / "trained").exists():
            self._train(workspace(self.folder), events)
        self.closed = self.folder / "lotse-data" / "closed"
        self.config = self.folder / "configs" / "experiments.json"

    @staticmethod
    def _train(folder: Path, events: int) -> None:
        for verb in (
            ("simulate", "--events", str(events), "--days", "28", "--out", "history.parquet"),
            ("train", "--source", "lotse", "--events", "history.parquet"),
        ):
            begin = time.monotonic()
            done = lotse(folder, *verb)
            assert done.returncode == 0, done.stderr
            console.print(f"lotse {verb[0]}: {time.monotonic() - begin:.0f} s", style="dim")
        (folder / "trained").touch()

    def serve(self, content: dict[str, Any], heads: Sequence[str] = HEADS, *overrides: str) -> Service:
        """Start, with nothing that is over yet."""
        self.config.write_text(json.dumps(content))
        shutil.rmtree(self.closed, ignore_errors=True)
        for state in ("live", "experiments"):
            shutil.rmtree(self.folder / "lotse-data" / state, ignore_errors=True)
        return Service(
            self.folder, f"models.heads={json.dumps(list(heads))}", "store.closed_seconds=0.5", *overrides
        ).start()

    def visit(self, service: Service, visits: Sequence[Visit], persuasions: Sequence[Persuasion]) -> None:
        """Let the visits happen, and wait until the sessions of all who were exposed are over and handed on."""
        before = self._handed_on()
        begin = time.monotonic()
        counts = asyncio.run(
            browse_in_step(f"http://127.0.0.1:{service.port}", visits, at_once=500, persuasions=persuasions)
        )
        took = time.monotonic() - begin
        over = sum(visit.done for visit in visits)
        wait_until(lambda: self._handed_on() - before >= over, 120)
        met = sum(bool(visit.reactions) for visit in visits)
        console.print(
            f"{over:,} visitors, {counts.answered:,} events in {took:.0f} s; {met:,} were exposed", style="dim"
        )

    def _handed_on(self) -> int:
        return sum(pq.ParquetFile(path).metadata.num_rows for path in self.closed.glob("day=*/*.parquet"))

    def units(self) -> pd.DataFrame:
        """Of all experiments."""
        return units_of_closed(self.closed, load_experiments(self.config))

    def analysis(self, key: str, units: pd.DataFrame) -> Analysis:
        """As `lotse experiment report` makes it."""
        return analyse(units_of(units, key, load_experiments(self.config)[key]), key, by_risk=False, looks=False)


def content_of(flags: Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, Any]:
    """A configuration: flag -> experiment, condition, more of its definition; arms are the flag's values."""
    features, experiments = {}, {}
    for flag, (key, condition, more) in flags.items():
        arms = more["arms"]
        rule = {"key": key, "condition": dict(condition), "variations": list(arms)}
        features[flag] = {"defaultValue": arms[0], "rules": [rule]}
        experiments[key] = {"goals": [PURCHASE, REVENUE], **more}
    return {"features": features, "experiments": experiments}


def planted(shop: Shop, visitors: int) -> None:
    """A lift that is found, tests of nothing that find nothing, and sessions that get lost."""
    asked = {"conversion": {"$gt": 0.1}}
    offer = {
        "name": "Free-shipping banner",
        "hypothesis": "Visitors who may buy do so more often if they see what is missing to free shipping.",
        "arms": ["none", "banner"],
        "guardrails": [{"goal": "revenue", "worst": -0.1}],
        "planned_units": 10_000,
    }
    flags: dict[str, tuple[str, Mapping[str, Any], Mapping[str, Any]]] = {"help": ("offer", asked, offer)}
    persuasions = [Persuasion("help", {"none": no_lift, "banner": lambda truth: LIFT})]
    for number in range(TESTS_OF_NOTHING):
        flags[f"aa_{number}"] = (f"aa_{number}", asked, {"arms": ["a", "b"], "planned_units": 10_000})
        persuasions.append(Persuasion(f"aa_{number}", {"a": no_lift, "b": no_lift}))
    service = shop.serve(content_of(flags))
    visits = visits_of_shop(simulate(visitors=visitors, seed=101))
    try:
        shop.visit(service, visits, persuasions)
    finally:
        service.stop()
    begin = time.monotonic()
    units = shop.units()
    console.print(f"{len(units):,} units read in {time.monotonic() - begin:.1f} s", style="dim")
    chances = [visit.reactions["help"].chances for visit in visits if "help" in visit.reactions]
    truth = sum(one["banner"] for one in chances) / sum(one["none"] for one in chances) - 1
    rows, nothing = [], []
    for key in load_experiments(shop.config):
        found = shop.analysis(key, units)
        alarm = any(ratio.alarm for ratio in found.ratios)
        for goal, arms in found.judged.items():
            (one,) = arms.values()
            assert one is not None
            if key != "offer":
                nothing.append((one.effect.lift, one.verdict, alarm))
                continue
            size = f"{one.effect.units + one.effect.control_units:,}"
            planted_lift = f"{truth:+.1%}" if goal == "purchase" else ""
            interval = f"{one.low:+.1%} to {one.high:+.1%}"
            rows.append([goal, size, planted_lift, f"{one.effect.lift:+.1%}", interval, one.verdict, str(alarm)])
    report("What was planted", ["goal", "units", "truth", "lift", "always valid", "verdict", "ratio alarm"], rows)
    lifts, verdicts, alarms = zip(*nothing, strict=True)
    told = [f"{min(lifts):+.1%} to {max(lifts):+.1%}", f"{verdicts.count('open')} of {len(verdicts)}", str(sum(alarms))]
    report(f"{TESTS_OF_NOTHING} tests of nothing, two goals each", ["lifts", "open", "ratio alarms"], [told])
    losses(shop, units)
    if shop.pictures:
        pictures(shop, units)


def losses(shop: Shop, units: pd.DataFrame) -> None:
    """How often sessions that one arm loses raise the alarm: 200 draws of which they are."""
    definition = load_experiments(shop.config)["offer"]
    of = units[units["experiment"] == "offer"]
    random = np.random.default_rng(0)
    rows = []
    for lost in (0.01, 0.05, 0.1, 0.15):
        alarms = 0
        for _ in range(200):
            kept = (of["arm"] != "banner") | (random.random(len(of)) >= lost)
            alarms += any(one.alarm for one in sample_ratios(units_of(of[kept], "offer", definition)))
        rows.append([f"{lost:.0%}", f"{len(of):,}", f"{alarms / 200:.0%}"])
    report("Closed sessions of one arm that are lost", ["lost", "units", "alarm"], rows)


def pictures(shop: Shop, units: pd.DataFrame) -> None:
    """The pictures of docs/experiments.md: reports as a browser shows them."""
    definition = load_experiments(shop.config)["offer"]
    of = units[units["experiment"] == "offer"]
    lost = of[(of["arm"] == "none") | (np.random.default_rng(0).random(len(of)) > 0.15)]
    assert shop.pictures is not None
    shop.pictures.mkdir(parents=True, exist_ok=True)
    for name, table, height in (("report", of, 2_700), ("ratio", lost, 900)):
        page = report_page(analyse(units_of(table, "offer", definition), "offer"))
        _photograph(page, shop.pictures / f"{name}.png", height)


def _photograph(page: str, path: Path, height: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "report.html"
        source.write_text(page)
        subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=8000", f"--window-size=900,{height}",
             f"--user-data-dir={place}/profile", f"--screenshot={path}", source.as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    console.print(f"{path}: {path.stat().st_size:,} bytes")


def uplift(shop: Shop, visitors: int) -> None:
    """An uplift that is learned from what a finished experiment handed on, and what targeting by it brings."""
    lifts: dict[str, Lift] = {"none": no_lift, "banner": by_risk}
    service = shop.serve(content_of({"help": ("guide", MOMENT, {"arms": ["none", "banner"]})}))
    try:
        shop.visit(service, long_visits(visitors, seed=102), [Persuasion("help", lifts)])
    finally:
        service.stop()
    units = shop.folder / "units.parquet"
    for verb in (
        ("experiment", "units", "--closed", str(shop.closed), "--out", str(units)),
        ("train", "--head", "uplift", "--units", str(units), "--experiment", "guide", "--arm", "banner",
         "--control", "none", "--goal", "purchases"),
    ):  # fmt: skip
        done = lotse(shop.folder, *verb)
        assert done.returncode == 0, done.stderr
        console.print(done.stdout, markup=False)
    (version,) = re.findall(r"uplift v(\d+)", done.stdout)
    if version != "1":  # the first version is the champion at once
        done = lotse(shop.folder, "rollback", "--head", "uplift", "--to", version)
        assert done.returncode == 0, done.stderr
    rows = []
    for name, more in (("nobody", None), ("everybody", {}), ("where uplift > 0", {"uplift": {"$gt": 0}})):
        # whoever is not shown it is given "none" by a rule, at the same moment
        rules = [{"condition": {**MOMENT, **more}, "force": "banner"}] if more is not None else []
        rules.append({"condition": MOMENT, "force": "none"})
        service = shop.serve({"features": {"help": {"defaultValue": "", "rules": rules}}}, (*HEADS, "uplift"))
        visits = long_visits(visitors // 2, seed=103)
        try:
            shop.visit(service, visits, [Persuasion("help", lifts)])
        finally:
            service.stop()
        met = [visit for visit in visits if visit.reactions]
        reactions = [visit.reactions["help"] for visit in met]
        figures = (
            np.mean([one.shown == "banner" for one in reactions]),
            np.mean([visit.bought_after("help") for visit in met]),
            np.mean([one.chances[one.shown] for one in reactions]),
            np.mean([max(one.chances.values()) for one in reactions]),
        )
        rows.append([name, f"{len(met):,}", *(f"{figure:.1%}" for figure in figures)])
    report("The banner by uplift", ["shown to", "visitors", "share", "bought", "expected", "at best"], rows)


def learning(shop: Shop, visitors: int) -> None:
    """Allocations that learn while the crowd comes: regret beside an even split, which the truth gives."""
    contextual = {"name": "contextual", "score": "conversion", "edges": [0.01, 0.03, 0.06, 0.1, 0.15, 0.25]}
    rows = []
    for title, lift in {"+30 % for all": lambda truth: 0.3, "by risk": by_risk}.items():
        for allocation in ({"name": "thompson"}, contextual):
            learns = {"holdback": 0.1, "minimum_share": 0.05, "allocation": {**allocation, "settle_minutes": 0}}
            content = content_of({"help": ("guide", MOMENT, {"arms": ["none", "banner"], **learns})})
            service = shop.serve(
                content, HEADS, "experiments.learn_seconds=1", f"experiments.table_minutes={_PERIOD / 60}"
            )
            visits = long_visits(visitors * 2 // 3, seed=104)
            missed, even, shown = [], [], []
            try:
                for wave in np.array_split(np.arange(len(visits)), _WAVES):
                    come = [visits[place] for place in wave]
                    shop.visit(service, come, [Persuasion("help", {"none": no_lift, "banner": lift})])
                    met = [visit.reactions["help"] for visit in come if visit.reactions]
                    missed.append([one.missed for one in met])
                    even.append([max(one.chances.values()) - np.mean([*one.chances.values()]) for one in met])
                    shown.append(np.mean([one.shown == "banner" for one in met]))
                    time.sleep(2 * _PERIOD)  # until there is a table that knows the wave
            finally:
                service.stop()
            parts = [slice(None), slice(_WAVES // 2, None)]
            figures = [f"{1000 * np.concatenate(of[part]).mean():.1f}" for part in parts for of in (missed, even)]
            exposed = f"{sum(map(len, missed)):,}"
            rows.append([title, str(allocation["name"]), exposed, *figures, f"{shown[0]:.0%} -> {shown[-1]:.0%}"])
    heads = ["missed", "even split", "later half", "even split", "the banner's share"]
    report("Missed per 1,000 visitors exposed", ["effect", "allocation", "exposed", *heads], rows)


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=60_000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--pictures", type=Path, help="Make the pictures of the docs here; needs chromium.")
    parser.add_argument("--folder", type=Path, help="Keep history and models here, for the next run.")
    parser.add_argument("--only", default=",".join(PARTS))
    arguments = parser.parse_args()
    parts: dict[str, Callable[[Shop, int], None]] = {"planted": planted, "uplift": uplift, "learning": learning}
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(arguments.folder or Path(folder), arguments.events, arguments.pictures)
        for name in arguments.only.split(","):
            parts[name](shop, arguments.visitors)


if __name__ == "__main__":
    main()
