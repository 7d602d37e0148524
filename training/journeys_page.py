"""The page of `lotse report`: journeys of a history or of a service's sessions, one HTML file that loads nothing.

In: the document of `features.journeys.report.journeys`. Out: HTML. What is undefined, or told of too few visitors, is
a dash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from training import journeys_figures as drawn
from training.document import document, figure_html, figures, folded, heading, sentence, table, tiles

DASH: Final = "–"
_SHOWN_TRAITS: Final = 14


def page(found: Mapping[str, Any], title: str) -> str:
    """The whole page."""
    k = found["least_visitors"]
    top = heading(f"Journeys: {title}", 1)
    if found["sessions"] is None:
        return document(f"Lotse: {title}", [top, sentence(f"Fewer than {k} visitors: nothing is told.")])
    sections = [
        top,
        sentence(
            f"Counted over every session, exactly, from what is kept of each; nothing is told of fewer than {k} "
            "visitors. A step is a change from one kind of event to another: five products in a row are one step."
        ),
        tiles(_numbers(found)),
        *_paths(found),
        *_funnels(found["funnels"]),
        *_ends(found["endings"]),
        *_dwell(found["dwell"]),
        *_cohorts(found["cohorts"]),
        *_returning(found["returning"]),
        heading("How it is counted"),
        *map(sentence, _notes(found)),
    ]
    return document(f"Lotse: {title}", sections)


def _numbers(found: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    yield f"{found['sessions']:,}", f"sessions of {found['visitors']:,} visitors"
    yield f"{found['from_day']} – {found['to_day'][5:]}", "UTC"
    brief, long = found["cohorts"]["brief"], found["cohorts"]["long"]
    if brief is not None:
        yield _percent(brief / found["sessions"]), f"left within {found['cohorts']['brief_seconds']:g} s"
        yield _percent(long / found["sessions"]), f"stayed over {found['cohorts']['long_seconds']:g} s"


def _paths(found: Mapping[str, Any]) -> list[str]:
    ahead, back = found["forward"], found["backward"]
    begin = f" that begin with {' > '.join(ahead['begin'])}" if ahead["begin"] else ""
    parts = [
        heading("Paths"),
        sentence(
            f"Sessions{begin} and where they go, move by move: {_count(ahead['sessions'])} of them. Move the slider."
        ),
    ]
    parts += [figure_html(drawn.paths(ahead)), folded("As a table", _moves(ahead))] if ahead["moves"] else []
    for one in found["entries"]:
        if one["moves"]:
            title = f"{one['sessions']:,} sessions that begin with {one['begin'][0]}"
            parts.append(folded(title, figure_html(drawn.paths(one)) + folded("As a table", _moves(one))))
    if back and back["moves"]:
        parts += [
            heading(f"Back from {' > '.join(back['goal'])}", 3),
            sentence(f"Where {_count(back['sessions'])} sessions came from that reached it, as of the first time."),
            figure_html(drawn.paths(back, backwards=True)),
            folded("As a table", _moves(back)),
        ]
    return parts


def _moves(part: Mapping[str, Any]) -> str:
    lines = [
        (str(move["place"]), move["from"] or "rare moves", move["to"] or "rare moves", f"{move['sessions']:,}")
        for move in part["moves"]
    ]
    return table(("move", "from", "to", "sessions"), lines)


def _funnels(funnels: Iterable[Mapping[str, Any]]) -> list[str]:
    funnels = list(funnels)
    if not funnels:
        return []
    parts = [
        heading("Funnels"),
        sentence(
            "Loose: the steps in this order, with any others between. Strict: each directly after the one before. "
            "Ended there: of those that came no further, how many ended their session with this very step."
        ),
    ]
    for title in dict.fromkeys(one["title"] for one in funnels):
        parts += [heading(title, 3), figures(drawn.funnel(one) for one in funnels if one["title"] == title)]
    for one in funnels:
        rows = [("all", "", one["reached"])]
        rows += [(name, label, reached) for name, of in one["segments"].items() for label, reached in of.items()]
        lines = [[f"{name} {label}".strip(), *map(_count, reached), _rate(reached)] for name, label, reached in rows]
        head = ["segment", *(f"{number}. {step}" for number, step in enumerate(one["steps"], start=1)), "all the way"]
        ended = ["ended there", *map(_count, one["ended_there"]), "", ""]
        parts.append(
            folded(f"{one['title']} ({one['mode']}), by segment", table(head, [*lines[:1], ended, *lines[1:]]))
        )
    return parts


def _ends(part: Mapping[str, Any]) -> list[str]:
    lines = [
        (
            line["step"],
            f"{line['sessions']:,}",
            _count(line["began"]),
            _count(line["ended"]),
            _between(line["share"], line["low"], line["high"]),
            _signed(line["excess"]),
        )
        for line in part["steps"]
    ]
    return [
        heading("Where sessions end"),
        sentence(
            "The last step of each session. Red: surely more end there than at steps in general "
            f"({_percent(part['common_share'])}, dashed): a bottleneck, unless it is where a visit should end."
        ),
        figure_html(drawn.ends(part)),
        table(
            ("step", "sessions", "began", "ended", "ended, of those that took it", "above the common rate"),
            lines,
            [line["bottleneck"] for line in part["steps"]],
        ),
    ]


def _dwell(part: Iterable[Mapping[str, Any]]) -> list[str]:
    names = ("median", "mean", "p90", "went_on_median", "ended_median")
    lines = [
        (line["kind"], f"{line['sessions']:,}", *(_seconds(line[f"{name}_seconds"]) for name in names)) for line in part
    ]
    return [
        heading("Time on each kind of page"),
        sentence(
            "Seconds a session spends on pages of a kind, of those that open one. After the latest event nobody knows "
            "how long a page was read, so of sessions that end there the last page counts for nothing."
        ),
        table(("page", "sessions", "median", "mean", "90 %", "median, went on", "median, ended there"), lines),
    ]


def _cohorts(part: Mapping[str, Any]) -> list[str]:
    title = f"Left within {part['brief_seconds']:g} s, or stayed over {part['long_seconds']:g} s"
    if part["brief"] is None:
        return [heading(title), sentence("One of the two is too small.")]
    shares = [one for one in part["traits"] if one["kind"] == "share"]
    lines = [
        (
            one["name"],
            "start" if one["at_start"] else "course",
            _percent(one["brief"]) if one["kind"] == "share" else f"{one['brief']:g}",
            _percent(one["long"]) if one["kind"] == "share" else f"{one['long']:g}",
            _between(one["effect"], one["low"], one["high"]),
            DASH if one["h"] is None else f"{one['h']:+.2f}",
        )
        for one in part["traits"]
    ]
    return [
        heading(title),
        sentence(
            f"{part['brief']:,} sessions left at once, {part['long']:,} stayed. How a session begins may tell which; "
            "what happened in its course also differs because a long visit has more of everything. Intervals (95 %) "
            "take sessions as independent."
        ),
        figure_html(drawn.differences([one for one in shares if one["at_start"]][:_SHOWN_TRAITS])),
        table(("trait", "known at", "left", "stayed", "effect", "Cohen's h"), lines),
        sentence(
            "Effect: the difference of the shares; of an amount, the probability that a session that stayed has more "
            "of it than one that left (50 %: no difference), beside the medians."
        ),
    ]


def _returning(part: Mapping[str, Any]) -> list[str]:
    lines = [
        (
            line["visit"],
            f"{line['sessions']:,}",
            _count(line["bought"]),
            _between(None if line["bought"] is None else line["bought"] / line["sessions"], line["low"], line["high"]),
        )
        for of in part.values()
        for line in of
    ]
    return [
        heading("Returning visitors"),
        sentence("Visits are linked only with consent; then by how long ago the visit before was."),
        table(("visit", "sessions", "bought", "conversion"), lines),
    ]


def _notes(found: Mapping[str, Any]) -> Iterable[str]:
    yield (
        f"The first {found['kept_steps']} steps of a session are kept in order; {_some(found, 'longer')} sessions are "
        "longer. Of these the last step, the kinds of steps and how many there were are exact, too; a funnel that they "
        "may go on with after that is counted as undecided."
    )
    for one in found["funnels"]:
        if any(count != 0 for count in one["undecided"]):
            yield f"{one['title']} ({one['mode']}): undecided {', '.join(map(_count, one['undecided']))}."
    if found["open"]:
        yield f"{found['open']:,} sessions may go on after the end of the log and are left out."
    if found["without_path"]:
        yield f"{found['without_path']:,} sessions were handed on by a release that kept no paths, and are left out."
    if found["without_steps"] != 0:
        yield f"{_some(found, 'without_steps')} sessions have no step: heartbeats and scrolling alone."
    if found["without"]:
        yield f"Not looked at: {', '.join(found['without'])}."


def _count(value: int | None) -> str:
    return DASH if value is None else f"{value:,}"


def _signed(value: int | None) -> str:
    return DASH if value is None else f"{value:+,}"


def _seconds(value: float | None) -> str:
    return DASH if value is None else f"{value:,.1f} s"


def _percent(share: float) -> str:
    return f"{share:.1%}".replace("%", " %")


def _between(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return DASH
    return f"{_percent(value)} ({_percent(low)} to {_percent(high)})"


def _rate(reached: list[int | None]) -> str:
    return DASH if reached[-1] is None or not reached[0] else _percent(reached[-1] / reached[0])


def _some(found: Mapping[str, Any], name: str) -> str:
    """A number of sessions that may be too small to be told."""
    return "few" if found[name] is None else f"{found[name]:,}"
