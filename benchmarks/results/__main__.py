"""The tables of docs/results.md: Lotse beside other learners, on the same split and the same rows of each log.

    python -m benchmarks.results [--only taobao,trivago] [--out docs/results.md]

Needs the extra `rivals`. Takes about 20 minutes on two cores. The prose of the page stays as it is.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.measure import console
from benchmarks.results import online_shoppers
from benchmarks.results.entries import compare_entries
from benchmarks.results.logs import LOGS, ROOT, LogResult, compare_log
from benchmarks.results.noise import over_splits
from benchmarks.results.online_shoppers import quality
from benchmarks.results.tables import (
    SUMMARY,
    comparison_table,
    fill,
    merge_summary,
    quality_table,
    spread_table,
    summary_line,
)
from training.config import load_training
from training.heads import heads_of

# Places of the page with what belongs there, and lines of the summary.
Results = tuple[dict[str, list[str]], list[list[str]]]
PAGE: Final = ROOT / "docs" / "results.md"
SPLIT_AGAIN: Final = ("conversion", "exit")


def of_log(name: str) -> Results:
    """All heads of a log, each below its name; of taobao, whose visitors are few, the spread over other splits, too."""
    found: LogResult = compare_log(LOGS[name])
    lines = []
    for head, compared in found.compared.items():
        lines += ["", f"### {name}: {head}", "", *comparison_table(compared)]
    for reason in found.refused.values():
        lines += ["", f"Not asked: {reason}."]
    places = {name: [*lines, ""]}
    summary = [summary_line(name, head, compared) for head, compared in found.compared.items()]
    if name == "taobao":
        for head in SPLIT_AGAIN:
            places[f"{name} splits {head}"] = spread_table(over_splits(LOGS[name], head))
    return places, summary


def of_entries() -> Results:
    """Bounces of the Google Merchandise Store by entry."""
    settings = load_training(ROOT / "configs" / "training.toml")
    compared = compare_entries(heads_of(settings)["bounce"], settings)
    return {"ga360": comparison_table(compared)}, [summary_line("ga360", "bounce by entry", compared)]


def of_online_shoppers() -> Results:
    """Whole sessions of UCI's shop, four ways."""
    settings = load_training(ROOT / "configs" / "training.toml")
    head, bins = heads_of(settings)["conversion"], settings.evaluation.bins
    whole = online_shoppers.sessions()
    places = {}
    for place, part in (("uci", whole), ("uci without PageValues", whole.without("PageValues"))):
        scores = online_shoppers.cross_validated(part, head, settings)
        places[place] = quality_table({name: quality(part.answer, score, bins) for name, score in scores.items()})
    late = online_shoppers.later_months(whole, head, settings)
    answer = whole.answer[whole.late]
    places["uci later"] = quality_table({name: quality(answer, score, bins) for name, score in late.items()})
    answer, score = online_shoppers.oversampled_first(whole)
    places["uci oversampled"] = quality_table({"XGBoost, wrongly tested": quality(answer, score, bins)})
    return places, []


def main() -> None:
    """Measure, and write the page after each log, so that nothing is lost."""
    parts: dict[str, Callable[[], Results]] = {name: partial(of_log, name) for name in LOGS}
    parts |= {"ga360": of_entries, "uci": of_online_shoppers}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(parts), help=f"some of {','.join(parts)}")
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    unknown = set(options.only.split(",")) - parts.keys()
    if unknown:
        raise SystemExit(f"unknown log {min(unknown)!r}; there are: {', '.join(parts)}")
    # a regression that has not quite converged is a result, too
    warnings.filterwarnings("ignore", message=".*failed to converge.*")
    for name in options.only.split(","):
        begin = time.perf_counter()
        places, summary = parts[name]()
        # read again: somebody may have written prose meanwhile
        page = (options.out if options.out.exists() else PAGE).read_text()
        for place, lines in places.items():
            page = fill(page, place, lines)
        page = fill(page, SUMMARY, merge_summary(page, summary))
        options.out.write_text(page)
        console.print(f"{name}: {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
